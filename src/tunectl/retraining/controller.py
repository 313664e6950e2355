"""Moves retrain runs through their states. All state is in the run store, so a killed controller resumes where it was.

One run at a time. Only activities block; the time is a parameter, so that tests can set it.
"""

from __future__ import annotations

import secrets as random
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from msgspec import to_builtins
from msgspec.structs import replace

from tunectl.artifacts.lock import LockTimeoutError
from tunectl.canary.canary_store import CanaryRunningError
from tunectl.canary.sequential_test import CanaryDecision
from tunectl.config.schema.retrain import RetrainingConfig
from tunectl.core import logging_setup
from tunectl.core.errors import TunectlError
from tunectl.retraining import rate_limits, schedules, signed_links, state_machine
from tunectl.retraining.activities import RetrainActivities, StepResult
from tunectl.retraining.run_store import RunStore, TriggerOutcome
from tunectl.retraining.schedules import CronSchedule, Next
from tunectl.retraining.signed_links import ApprovalQuestion, ApprovalToken
from tunectl.retraining.state_machine import RetrainRun, State, Suppressed, Transition, Trigger

AFTER_CANARY: Final[dict[CanaryDecision, State]] = {
    "harm": "withdrawn",
    "undecided": "insufficient",
    "unfair": "insufficient",
}
ALREADY: Final = "it is the champion already"
_log = logging_setup.get_logger(__name__)


class RetrainController:
    """Moves retrain runs from state to state by calling activities; its process holds the lock of the run store."""

    def __init__(
        self,
        store: RunStore,
        activities: RetrainActivities,
        settings: RetrainingConfig,
        secret: bytes,
        following: Next,
        *,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store, self.activities, self.settings, self._secret, self._following = (
            store,
            activities,
            settings,
            secret,
            following,
        )
        self._seconds = seconds
        """Measures durations, independent of changes of the system clock."""
        self.stop = threading.Event()
        """Set it to stop the current work; the run is resumed by the next controller."""
        self._tidied = False
        self.policy = rate_limits.policy_of(settings.limits)

    def current_run(self) -> RetrainRun | None:
        """Return the run that has not ended; None where there is none."""
        return next((run for run in reversed(self.store.runs()) if not run.ended), None)

    def reconcile(self, now: datetime) -> bool:
        """Do the next due step and return True, or return False where nothing is due; call again at once after True."""
        run = self.current_run()
        if run is None:
            return self._begin_something(now)
        started = self._seconds()
        after = self._advance(run, now)
        if after is None:
            return False
        duration = timedelta(seconds=self._seconds() - started)
        self._write(state_machine.apply_transition(run, replace(after, at=after.at + duration)))
        return True

    def resend_approvals(self) -> None:
        """Send the links of pending approvals again: links signed with an earlier secret are invalid."""
        run = self.current_run()
        if run is not None and run.state == "awaiting_approval":
            facts = run.steps[-1].facts
            until = int(datetime.fromisoformat(facts["until"]).timestamp())
            token = ApprovalToken(run.id, facts["question"], until, facts["nonce"])
            self.activities.request_approval(run, token.question, self.approval_link(token))

    def _write(self, run: RetrainRun) -> None:
        step = run.steps[-1]
        self.store.save(run)
        _log.info("retrain %s: %s%s", run.id, step.state, f": {step.message}" if step.message else "")
        if run.ended:
            self.activities.cleanup(run)
            self.activities.notify_finished(run)

    # what starts a run

    def _begin_something(self, now: datetime) -> bool:
        self._tidy_once()
        self._schedules(now)
        self._reconcile(now)
        moved, trouble = False, None
        for trigger in self.store.list_pending_triggers():
            try:
                self._consider(trigger, now)
                moved = True
            except Exception as error:  # noqa: BLE001  whatever is wrong with this one, the others have their turn
                _log.error("trigger %s waits: %s", trigger.id, error)
                trouble = error
            if self.current_run() is not None:
                break
        if trouble is not None and not moved:
            raise trouble  # so that the failing look is counted, and people are told
        return moved

    def _tidy_once(self) -> None:
        """Repeat the cleanup of the last run: the previous controller may have been killed before it."""
        if self._tidied:
            return
        self.store.adopt_old_names()
        self.store.remove_resolved_triggers()
        for run in self.store.runs()[-1:]:
            self.activities.cleanup(run)
            self.activities.notify_finished(run)
        self._tidied = True

    def _schedules(self, now: datetime) -> None:
        """Add a trigger for every due slot, then mark the slot: after a kill between the two the trigger is known already."""
        marks = self.store.get_schedule_marks()
        times: dict[str, datetime] = {}
        for name, schedule_config in self.settings.schedules.items():
            schedule = CronSchedule(name, schedule_config.cron, schedule_config.zone)
            slot, times[name] = schedules.due_slot(schedule, marks.get(name), now, self._following)
            if slot is not None:
                self.store.enqueue_trigger(schedules.trigger(schedule, slot, now))
        if times != marks:
            self.store.set_schedule_marks(times)

    def _reconcile(self, now: datetime) -> None:
        """Start a run for drift without an alert: Alertmanager was down, or too many deliveries were answered with busy.

        While cooldown or budget prevent a run no trigger is made: each window would freeze the live traffic again, only to be rejected.
        """
        result = self.activities.drift(now)
        if result is None or now - result[1] < timedelta(minutes=self.settings.reconcile_minutes):
            return
        window = result[0]
        reason = f"drift: {window.reason}"
        trigger = Trigger("poll", f"drift-{window.id}", now, reason, window=window.id)
        if rate_limits.rate_limited(trigger, self.store.runs(), now, self.policy) is None:
            self.store.enqueue_trigger(trigger)

    def _consider(self, trigger: Trigger, now: datetime) -> None:
        """Begin a run, or record why not."""
        prepared = self.activities.prepare(trigger, now)
        if prepared is None:
            self._settle(trigger, now, "no_drift", "no window of the champion's traffic says drift")
            return
        decision = rate_limits.admit_trigger(prepared.key, trigger, self.store.runs(), now, self.policy)
        if decision.attempt is None:
            self._settle(trigger, now, decision.reason, decision.detail)
            return
        run = state_machine.new_run(prepared.key, decision.attempt, trigger, now, prepared.facts)
        self._write(run)
        self.store.resolve_trigger(TriggerOutcome(trigger, now, run.id))

    def _settle(self, trigger: Trigger, now: datetime, reason: Suppressed | None, detail: str) -> None:
        _log.info("trigger %s starts nothing: %s", trigger.id, detail)
        self.store.resolve_trigger(TriggerOutcome(trigger, now, None, reason, detail))

    # what moves it on

    def _advance(self, run: RetrainRun, now: datetime) -> Transition | None:
        """Return the next transition; None while there is none."""
        steps: dict[State, Callable[[RetrainRun, datetime], Transition | None]] = {
            "proposed": self._handle_proposed,
            "awaiting_approval": self._handle_awaiting_approval,
            "data_gate": self._handle_data_gate,
            "training": self._handle_training,
            "evaluating": self._handle_evaluating,
            "staged": self._handle_staged,
            "canary": self._handle_canary,
        }
        if not self.store.get_outcome(run.trigger.id):  # killed between the run's first record and this one
            self.store.resolve_trigger(TriggerOutcome(run.trigger, now, run.id))
        try:
            return steps[run.state](run, now)
        except Exception as error:  # noqa: BLE001  whatever is wrong with this run, the controller goes on to the next
            return self._handle_error(run, now, error)

    def _handle_error(self, run: RetrainRun, now: datetime, error: Exception) -> Transition | None:
        """Return the transition to failed, unless the same step may succeed later: then this reconcile fails, and the next one tries again."""
        if self.stop.is_set():
            return None
        lasts = run.state == "canary" and now < datetime.fromisoformat(run.steps[-1].facts["until"])
        if isinstance(error, LockTimeoutError) or lasts or self.activities.is_promoted(run):
            raise error  # nothing is lost by waiting; and of a challenger that serves nobody may read that it failed
        is_expected = isinstance(error, TunectlError | OSError)
        _log.error("retrain %s failed while %s: %s", run.id, run.state, error, exc_info=None if is_expected else error)
        if run.state == "canary":
            self.activities.stop_canary(run, None, now)
        reason = error.message if isinstance(error, TunectlError) else f"{type(error).__name__}: {error}"
        return Transition("failed", now, reason, {"while": run.state, "hint": getattr(error, "hint", "")})

    def _handle_proposed(self, run: RetrainRun, now: datetime) -> Transition:
        if self.settings.approval.training == "required" and run.trigger.kind in ("alert", "poll"):
            result = self.activities.data(run)
            if result.fine:  # nobody is asked about what would be turned down anyway
                return self._ask_approval(run, "retrain", now, {"data": result.facts})
        return Transition("data_gate", now)

    def _ask_approval(
        self, run: RetrainRun, question: ApprovalQuestion, now: datetime, facts: dict[str, Any]
    ) -> Transition:
        until = now + timedelta(hours=self.settings.approval.timeout_hours)
        nonce = random.token_hex(8)
        link = self.approval_link(ApprovalToken(run.id, question, int(until.timestamp()), nonce))
        self.activities.request_approval(run, question, link)
        approval = {"question": question, "until": until.isoformat(), "nonce": nonce}
        reason = f"a person is asked until {until:%Y-%m-%d %H:%M} UTC"
        return Transition("awaiting_approval", now, reason, {**facts, **approval})

    def approval_link(self, token: ApprovalToken) -> str:
        """Return the URL of the approval page for ``token``."""
        return signed_links.address(self.settings.approval.url, token, self._secret)

    def _handle_awaiting_approval(self, run: RetrainRun, now: datetime) -> Transition | None:
        facts = run.steps[-1].facts
        question: ApprovalQuestion = facts["question"]
        decision = self.store.get_decision(run.id, question)
        if question == "promote" and not (decision and decision.approved) and self.activities.is_promoted(run):
            return self._promote(run, ALREADY, now)
        if decision is None:
            return self._check_approval_timeout(run, now)
        if question == "retrain":
            return Transition("data_gate" if decision.approved else "dismissed", now, decision.describe())
        if not decision.approved:
            return Transition("rejected", now, decision.describe())
        return self._promote(run, f"{decision.describe()}; {facts.get('message', '')}".rstrip("; "), now)

    def _check_approval_timeout(self, run: RetrainRun, now: datetime) -> Transition | None:
        last_step = run.steps[-1]
        if last_step.at > now + schedules.AHEAD:
            return Transition("dismissed", now, "nobody answered, and it was asked by a clock that was wrong")
        if now < datetime.fromisoformat(last_step.facts["until"]):
            return None
        return Transition("dismissed", now, f"nobody answered in {self.settings.approval.timeout_hours:g} hours")

    def _handle_data_gate(self, run: RetrainRun, now: datetime) -> Transition:
        result = self.activities.data(run)
        return Transition("training" if result.fine else "insufficient", now, result.summary, result.facts)

    def _handle_training(self, run: RetrainRun, now: datetime) -> Transition | None:
        result: StepResult = self.activities.train(run, self.stop)
        if self.stop.is_set():
            return None
        return Transition("evaluating" if result.fine else "rejected", now, result.summary, result.facts)

    def _handle_evaluating(self, run: RetrainRun, now: datetime) -> Transition | None:
        verdict = self.activities.judge(run, self.stop)
        if self.stop.is_set():
            return None
        after: dict[str, State] = {"promote": "staged", "reject": "rejected", "insufficient": "insufficient"}
        return Transition(after[verdict.verdict], now, verdict.reason, to_builtins(verdict))

    def _handle_staged(self, run: RetrainRun, now: datetime) -> Transition | None:
        canary, asks = self.settings.canary, self.settings.approval.promotion == "required"
        if canary is None and not asks:
            return self._promote(run, run.steps[-1].message, now)
        if self.activities.is_promoted(run):
            return self._promote(run, ALREADY, now)
        if canary is None:
            return self._ask_approval(run, "promote", now, {"message": "the gate said yes"})
        try:
            canary_facts = self.activities.start_canary(run, now)
        except CanaryRunningError as error:
            if now - run.steps[-1].at > timedelta(days=canary.max_days):
                raise
            _log.info("retrain %s waits for its canary test: %s", run.id, error.message)
            return None
        return Transition("canary", now, f"{canary.share:.0%} of the identities", canary_facts)

    def _handle_canary(self, run: RetrainRun, now: datetime) -> Transition | None:
        reading = self.activities.poll_canary(run, now)
        if reading is None:
            return Transition("insufficient", now, "the canary was stopped by hand")
        if reading.decision == "running":
            return None
        facts = to_builtins(reading)
        if reading.decision == "promote" and (
            self.settings.approval.promotion == "none" or self.activities.is_promoted(run)
        ):
            return self._promote(run, reading.reason, now, facts)
        self.activities.stop_canary(
            run, reading, now
        )  # also where a person is asked, which takes days in which nobody looks
        if reading.decision == "promote":
            return self._ask_approval(run, "promote", now, {"message": reading.reason, "reading": facts})
        return Transition(AFTER_CANARY[reading.decision], now, reading.reason, facts)

    def _promote(self, run: RetrainRun, reason: str, now: datetime, facts: dict[str, Any] | None = None) -> Transition:
        """Move the pointer, then record it: after a kill between the two the pointer is already right."""
        outcome = self.activities.promote(run, reason, now)
        return Transition("promoted", now, reason, {**(facts or {}), **outcome})

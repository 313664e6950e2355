"""Moves retrains on, a step a look. All state is in the book: whoever is killed comes back and goes on.

One at a time. Nothing here waits for longer than its hands do; the clock is given.
"""

from __future__ import annotations

import secrets as random
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from msgspec import to_builtins

from tunectl.config.watch import Watch, WatchLimits
from tunectl.core import log
from tunectl.core.errors import TunectlError
from tunectl.release import calendar, links, machine
from tunectl.release.book import Book, Seen
from tunectl.release.calendar import Next, Schedule
from tunectl.release.experiment import Decision
from tunectl.release.links import Pass, Question
from tunectl.release.machine import Policy, Run, State, Step, Suppressed, Trigger
from tunectl.services.watcher.hands import Found, Hands

AFTER_CANARY: Final[dict[Decision, State]] = {
    "harm": "rolled_back",
    "undecided": "insufficient",
    "unfair": "insufficient",
}
_log = log.get(__name__)


def policy(limits: WatchLimits) -> Policy:
    """How often anything is started, as ``watch.limits`` declares it."""
    return Policy(timedelta(hours=limits.cooldown_hours), timedelta(hours=limits.longest_cooldown_hours), limits.week)


class Driver:
    """The one that holds the book's lock."""

    def __init__(self, book: Book, hands: Hands, watch: Watch, secret: bytes, following: Next) -> None:
        self.book, self.hands, self.watch, self._secret, self._following = book, hands, watch, secret, following
        self.stop = threading.Event()
        """Set it to end what runs; the run goes on with the next watcher."""
        self._tidied = False
        self.policy = policy(watch.limits)

    def active(self) -> Run | None:
        """The run that has not ended."""
        return next((run for run in reversed(self.book.runs()) if not run.ended), None)

    def look(self, now: datetime) -> bool:
        """Do what there is to do; says whether anything was. Call again at once where it was."""
        run = self.active()
        if run is None:
            return self._begin_something(now)
        after = self._onward(run, now)
        if after is None or self.stop.is_set():
            return False
        self._write(machine.advanced(run, after))
        return True

    def _write(self, run: Run) -> None:
        step = run.steps[-1]
        self.book.save(run)
        _log.info("retrain %s: %s%s", run.id, step.state, f": {step.why}" if step.why else "")
        if run.ended:
            self.hands.tidy(run)
            self.hands.concluded(run)

    # what starts a run

    def _begin_something(self, now: datetime) -> bool:
        self._tidy_once()
        self._schedules(now)
        self._reconcile(now)
        moved = False
        for trigger in self.book.waiting():
            moved = self._consider(trigger, now) or moved
            if self.active() is not None:
                break
        return moved

    def _tidy_once(self) -> None:
        """The watcher before this one may have been killed between the end of a run and what follows from it."""
        if self._tidied:
            return
        for run in self.book.runs()[-1:]:
            self.hands.tidy(run)
        self._tidied = True

    def _schedules(self, now: datetime) -> None:
        """Put every slot that has come into the inbox, then mark it: a kill between the two finds a known trigger."""
        marks = self.book.calendar()
        fresh: dict[str, datetime] = {}
        for name, declared in self.watch.schedules.items():
            schedule = Schedule(name, declared.cron, declared.zone)
            slot, fresh[name] = calendar.due(schedule, marks.get(name), now, self._following)
            if slot is not None:
                self.book.receive(calendar.trigger(schedule, slot, now))
        if fresh != marks:
            self.book.mark(fresh)

    def _reconcile(self, now: datetime) -> None:
        """A drift that nobody told of: Alertmanager was down, or busy was answered too often."""
        found = self.hands.drift()
        if found is None or now - found[1] < timedelta(minutes=self.watch.reconcile_minutes):
            return
        window = found[0]
        why = f"drift in {window.consecutive} windows in a row: {window.reason}"
        self.book.receive(Trigger("poll", f"drift-{window.id}", now, why, window=window.id))

    def _consider(self, trigger: Trigger, now: datetime) -> bool:
        """Begin a run, or write why not; False where neither can be said yet."""
        try:
            prepared = self.hands.prepare(trigger, now)
        except TunectlError as error:
            _log.error("trigger %s waits: %s", trigger.id, error)
            return False
        if prepared is None:
            return self._settle(trigger, now, "no_drift", "no window of the champion's traffic says drift")
        found = machine.admit(prepared.key, trigger, self.book.runs(), now, self.policy)
        if found.attempt is None:
            return self._settle(trigger, now, found.reason, found.words)
        run = machine.begun(prepared.key, found.attempt, trigger, now, prepared.facts)
        self._write(run)
        self.book.settle(Seen(trigger, now, run.id))
        return True

    def _settle(self, trigger: Trigger, now: datetime, reason: Suppressed | None, words: str) -> bool:
        _log.info("trigger %s starts nothing: %s", trigger.id, words)
        self.book.settle(Seen(trigger, now, None, reason, words))
        return True

    # what moves it on

    def _onward(self, run: Run, now: datetime) -> Step | None:
        """The next step; None while there is nothing to say."""
        steps: dict[State, Callable[[Run, datetime], Step | None]] = {
            "proposed": self._proposed,
            "awaiting_approval": self._awaiting,
            "data_gate": self._data,
            "training": self._training,
            "evaluating": self._evaluating,
            "staged": self._staged,
            "canary": self._canary,
        }
        try:
            if not self.book.seen(run.trigger.id):  # killed between the run's first record and this one
                self.book.settle(Seen(run.trigger, now, run.id))
            return steps[run.state](run, now)
        except TunectlError as error:
            if self.stop.is_set():
                return None
            if run.state == "canary" and now < datetime.fromisoformat(run.steps[-1].facts["until"]):
                raise  # the live store will be back; until the experiment's time is over nothing is lost
            _log.error("retrain %s failed while %s: %s", run.id, run.state, error)
            if run.state == "canary":
                self.hands.end(run, None, now)
            return Step("failed", now, error.message, {"while": run.state, "hint": error.hint})

    def _proposed(self, run: Run, now: datetime) -> Step:
        if self.watch.mode == "ask" and run.trigger.kind in ("alert", "poll"):
            found = self.hands.data(run)
            if found.fine:  # nobody is asked about what would be turned down anyway
                return self._asks(run, "retrain", now, {"data": found.facts})
        return Step("data_gate", now)

    def _asks(self, run: Run, question: Question, now: datetime, facts: dict[str, Any]) -> Step:
        until = now + timedelta(hours=self.watch.ask.hours)
        nonce = random.token_hex(8)
        link = self.link(Pass(run.id, question, int(until.timestamp()), nonce))
        self.hands.ask(run, question, link)
        told = {"question": question, "until": until.isoformat(), "nonce": nonce}
        words = f"a person is asked until {until:%Y-%m-%d %H:%M} UTC"
        return Step("awaiting_approval", now, words, {**facts, **told})

    def link(self, given: Pass) -> str:
        """The address of a decision."""
        return links.address(self.watch.ask.url, given, self._secret)

    def _awaiting(self, run: Run, now: datetime) -> Step | None:
        facts = run.steps[-1].facts
        question: Question = facts["question"]
        found = self.book.answered(run.id, question)
        if found is None:
            if now < datetime.fromisoformat(facts["until"]):
                return None
            return Step("dismissed", now, f"nobody answered in {self.watch.ask.hours:g} hours")
        if question == "retrain":
            said = f"{found.by or 'somebody'} said {'yes' if found.yes else 'no'}"
            return Step("data_gate" if found.yes else "dismissed", now, said)
        if not found.yes:
            return Step("rejected", now, f"{found.by or 'somebody'} said no")
        return self._promoted(run, f"{found.by or 'somebody'} said yes; {facts.get('why', '')}".rstrip("; "), now)

    def _data(self, run: Run, now: datetime) -> Step:
        found = self.hands.data(run)
        return Step("training" if found.fine else "insufficient", now, found.words, found.facts)

    def _training(self, run: Run, now: datetime) -> Step | None:
        found: Found = self.hands.train(run, self.stop)
        if self.stop.is_set():
            return None
        return Step("evaluating" if found.fine else "rejected", now, found.words, found.facts)

    def _evaluating(self, run: Run, now: datetime) -> Step | None:
        verdict = self.hands.judge(run, self.stop)
        if self.stop.is_set():
            return None
        after: dict[str, State] = {"promote": "staged", "reject": "rejected", "insufficient": "insufficient"}
        return Step(after[verdict.verdict], now, verdict.reason, to_builtins(verdict))

    def _staged(self, run: Run, now: datetime) -> Step:
        if self.watch.canary is not None:
            return Step("canary", now, f"{self.watch.canary.share:.0%} of the identities", self.hands.begin(run, now))
        if self.watch.ask.promotion:
            return self._asks(run, "promote", now, {"why": "the gate said yes"})
        return self._promoted(run, run.steps[-1].why, now)

    def _canary(self, run: Run, now: datetime) -> Step | None:
        reading = self.hands.look(run, now)
        if reading is None:
            return Step("insufficient", now, "somebody ended the experiment by hand")
        if reading.decision == "running":
            return None
        facts = to_builtins(reading)
        if reading.decision != "promote":
            self.hands.end(run, reading, now)
            return Step(AFTER_CANARY[reading.decision], now, reading.reason, facts)
        if self.watch.ask.promotion:
            return self._asks(run, "promote", now, {"why": reading.reason, "reading": facts})
        return self._promoted(run, reading.reason, now, facts)

    def _promoted(self, run: Run, why: str, now: datetime, facts: dict[str, Any] | None = None) -> Step:
        """Swap the pointer, then say so: a kill between the two swaps to what is champion already."""
        done = self.hands.promote(run, why, now)
        return Step("promoted", now, why, {**(facts or {}), **done})

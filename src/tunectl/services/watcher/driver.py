"""Moves retrains on, a step a look. All state is in the book: whoever is killed comes back and goes on.

One at a time. Nothing here waits for longer than its hands do; the clock is given.
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

from tunectl.artifacts.lock import Busy
from tunectl.config.watch import Watch
from tunectl.core import log
from tunectl.core.errors import TunectlError
from tunectl.release import admission, calendar, links, machine
from tunectl.release.book import Book, Seen
from tunectl.release.calendar import Next, Schedule
from tunectl.release.experiment import Decision
from tunectl.release.links import Pass, Question
from tunectl.release.machine import Run, State, Step, Suppressed, Trigger
from tunectl.release.trials import Occupied
from tunectl.services.watcher.hands import Found, Hands

AFTER_CANARY: Final[dict[Decision, State]] = {
    "harm": "rolled_back",
    "undecided": "insufficient",
    "unfair": "insufficient",
}
ALREADY: Final = "it is the champion already"
_log = log.get(__name__)


class Driver:
    """The one that holds the book's lock."""

    def __init__(
        self,
        book: Book,
        hands: Hands,
        watch: Watch,
        secret: bytes,
        following: Next,
        *,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self.book, self.hands, self.watch, self._secret, self._following = book, hands, watch, secret, following
        self._seconds = seconds
        """Tells how long work took, whatever happens to the clock meanwhile."""
        self.stop = threading.Event()
        """Set it to end what runs; the run goes on with the next watcher."""
        self._tidied = False
        self.policy = admission.policy_of(watch.limits)

    def active(self) -> Run | None:
        """The run that has not ended."""
        return next((run for run in reversed(self.book.runs()) if not run.ended), None)

    def look(self, now: datetime) -> bool:
        """Do what there is to do; says whether anything was. Call again at once where it was."""
        run = self.active()
        if run is None:
            return self._begin_something(now)
        begun = self._seconds()
        after = self._onward(run, now)
        if after is None:
            return False
        worked = timedelta(seconds=self._seconds() - begun)
        self._write(machine.advanced(run, replace(after, at=after.at + worked)))
        return True

    def remind(self) -> None:
        """Ask a person again what one is asked: links that an earlier secret signed are worth nothing."""
        run = self.active()
        if run is not None and run.state == "awaiting_approval":
            facts = run.steps[-1].facts
            until = int(datetime.fromisoformat(facts["until"]).timestamp())
            given = Pass(run.id, facts["question"], until, facts["nonce"])
            self.hands.ask(run, given.question, self.link(given))

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
        moved, trouble = False, None
        for trigger in self.book.waiting():
            try:
                self._consider(trigger, now)
                moved = True
            except Exception as error:  # noqa: BLE001  whatever is wrong with this one, the others have their turn
                _log.error("trigger %s waits: %s", trigger.id, error)
                trouble = error
            if self.active() is not None:
                break
        if trouble is not None and not moved:
            raise trouble  # so that the failing look is counted, and people are told
        return moved

    def _tidy_once(self) -> None:
        """The watcher before this one may have been killed between the end of a run and what follows from it."""
        if self._tidied:
            return
        for run in self.book.runs()[-1:]:
            self.hands.tidy(run)
            self.hands.concluded(run)
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
        """A drift that nobody told of: Alertmanager was down, or busy was answered too often.

        While cooldown or budget hold it up it is not taken: each window would freeze the live traffic anew, only to be turned down.
        """
        found = self.hands.drift(now)
        if found is None or now - found[1] < timedelta(minutes=self.watch.reconcile_minutes):
            return
        window = found[0]
        why = f"drift in {window.consecutive} windows in a row: {window.reason}"
        trigger = Trigger("poll", f"drift-{window.id}", now, why, window=window.id)
        if admission.held_up(trigger, self.book.runs(), now, self.policy) is None:
            self.book.receive(trigger)

    def _consider(self, trigger: Trigger, now: datetime) -> None:
        """Begin a run, or write why not."""
        prepared = self.hands.prepare(trigger, now)
        if prepared is None:
            self._settle(trigger, now, "no_drift", "no window of the champion's traffic says drift")
            return
        found = admission.admit(prepared.key, trigger, self.book.runs(), now, self.policy)
        if found.attempt is None:
            self._settle(trigger, now, found.reason, found.words)
            return
        run = machine.begun(prepared.key, found.attempt, trigger, now, prepared.facts)
        self._write(run)
        self.book.settle(Seen(trigger, now, run.id))

    def _settle(self, trigger: Trigger, now: datetime, reason: Suppressed | None, words: str) -> None:
        _log.info("trigger %s starts nothing: %s", trigger.id, words)
        self.book.settle(Seen(trigger, now, None, reason, words))

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
        if not self.book.seen(run.trigger.id):  # killed between the run's first record and this one
            self.book.settle(Seen(run.trigger, now, run.id))
        try:
            return steps[run.state](run, now)
        except Exception as error:  # noqa: BLE001  whatever is wrong with this run, the watcher goes on to the next
            return self._troubled(run, now, error)

    def _troubled(self, run: Run, now: datetime, error: Exception) -> Step | None:
        """The end of a run, unless the same step may succeed later: then the look fails, and the next one tries again."""
        if self.stop.is_set():
            return None
        lasts = run.state == "canary" and now < datetime.fromisoformat(run.steps[-1].facts["until"])
        if isinstance(error, Busy) or lasts or self.hands.won(run):
            raise error  # nothing is lost by waiting; and of a challenger that serves nobody may read that it failed
        known = isinstance(error, TunectlError | OSError)
        _log.error("retrain %s failed while %s: %s", run.id, run.state, error, exc_info=None if known else error)
        if run.state == "canary":
            self.hands.end(run, None, now)
        words = error.message if isinstance(error, TunectlError) else f"{type(error).__name__}: {error}"
        return Step("failed", now, words, {"while": run.state, "hint": getattr(error, "hint", "")})

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
        if question == "promote" and not (found and found.yes) and self.hands.won(run):
            return self._promoted(run, ALREADY, now)
        if found is None:
            return self._unanswered(run, now)
        if question == "retrain":
            said = f"{found.by or 'somebody'} said {'yes' if found.yes else 'no'}"
            return Step("data_gate" if found.yes else "dismissed", now, said)
        if not found.yes:
            return Step("rejected", now, f"{found.by or 'somebody'} said no")
        return self._promoted(run, f"{found.by or 'somebody'} said yes; {facts.get('why', '')}".rstrip("; "), now)

    def _unanswered(self, run: Run, now: datetime) -> Step | None:
        asked = run.steps[-1]
        if asked.at > now + calendar.AHEAD:
            return Step("dismissed", now, "nobody answered, and it was asked by a clock that was wrong")
        if now < datetime.fromisoformat(asked.facts["until"]):
            return None
        return Step("dismissed", now, f"nobody answered in {self.watch.ask.hours:g} hours")

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

    def _staged(self, run: Run, now: datetime) -> Step | None:
        canary, asks = self.watch.canary, self.watch.ask.promotion
        if canary is None and not asks:
            return self._promoted(run, run.steps[-1].why, now)
        if self.hands.won(run):
            return self._promoted(run, ALREADY, now)
        if canary is None:
            return self._asks(run, "promote", now, {"why": "the gate said yes"})
        try:
            begun = self.hands.begin(run, now)
        except Occupied as error:
            if now - run.steps[-1].at > timedelta(days=canary.days):
                raise
            _log.info("retrain %s waits to be tried: %s", run.id, error.message)
            return None
        return Step("canary", now, f"{canary.share:.0%} of the identities", begun)

    def _canary(self, run: Run, now: datetime) -> Step | None:
        reading = self.hands.look(run, now)
        if reading is None:
            return Step("insufficient", now, "somebody ended the experiment by hand")
        if reading.decision == "running":
            return None
        facts = to_builtins(reading)
        if reading.decision == "promote" and (not self.watch.ask.promotion or self.hands.won(run)):
            return self._promoted(run, reading.reason, now, facts)
        self.hands.end(run, reading, now)  # also where a person is asked, which takes days in which nobody looks
        if reading.decision == "promote":
            return self._asks(run, "promote", now, {"why": reading.reason, "reading": facts})
        return Step(AFTER_CANARY[reading.decision], now, reading.reason, facts)

    def _promoted(self, run: Run, why: str, now: datetime, facts: dict[str, Any] | None = None) -> Step:
        """Swap the pointer, then say so: a kill between the two swaps to what is champion already."""
        done = self.hands.promote(run, why, now)
        return Step("promoted", now, why, {**(facts or {}), **done})

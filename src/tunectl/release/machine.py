"""The retrain state machine: what may follow what, what a run's key is, and who may start one. Pure.

    proposed -> [awaiting_approval] -> data_gate -> training -> evaluating -> staged -> canary -> promoted
                                                                                     rejected | rolled_back | failed |
                                                                                     dismissed | insufficient

A step that begins work is written before that work, one that ends it after, and all work may be done twice: so whoever comes back
after a kill knows where to go on. Nothing here
looks at a clock: times are given, in UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any, Final, Literal

from msgspec import Struct, field
from msgspec.structs import replace

from tunectl.artifacts import io
from tunectl.core.errors import TunectlError

State = Literal[
    "proposed",
    "awaiting_approval",
    "data_gate",
    "training",
    "evaluating",
    "staged",
    "canary",
    "promoted",
    "rejected",
    "rolled_back",
    "failed",
    "dismissed",
    "insufficient",
]
TriggerKind = Literal["alert", "poll", "schedule", "person"]
"""alert: a webhook. poll: the same drift, found by looking. schedule: the calendar. person: ``tunectl repro --reason``."""
Suppressed = Literal["duplicate", "busy", "cooldown", "budget", "no_drift"]
"""Why nothing was started. duplicate: that very run is concluded. busy: another runs. no_drift: an alert, but no such window."""

CONCLUDED: Final[frozenset[State]] = frozenset(("promoted", "rejected", "rolled_back", "dismissed", "insufficient"))
"""Ends that an equal key is not run again after; ``failed`` is an end, too, but may be tried again."""
ENDS: Final[frozenset[State]] = CONCLUDED | {"failed"}
NAGS: Final[frozenset[TriggerKind]] = frozenset(("alert", "poll"))
"""Triggers that come again for as long as the drift lasts."""
FRUITLESS: Final[frozenset[State]] = frozenset(("rejected", "rolled_back"))
"""Ends after which the next cooldown is twice as long."""
NEXT: Final[dict[State, frozenset[State]]] = {
    "proposed": frozenset(("awaiting_approval", "data_gate", "dismissed", "failed")),
    "awaiting_approval": frozenset(("data_gate", "promoted", "rejected", "dismissed", "failed")),
    "data_gate": frozenset(("training", "insufficient", "dismissed", "failed")),
    "training": frozenset(("evaluating", "rejected", "dismissed", "failed")),
    "evaluating": frozenset(("staged", "rejected", "insufficient", "failed")),
    "staged": frozenset(("awaiting_approval", "canary", "promoted", "rejected", "dismissed", "failed")),
    "canary": frozenset(("awaiting_approval", "promoted", "rejected", "rolled_back", "insufficient", "failed")),
    **{end: frozenset[State]() for end in ENDS},
}
"""What may follow a state."""
WEEK: Final = timedelta(days=7)
SHORT: Final = 12
"""Hexadecimal digits of a key where people read it."""


class Trigger(Struct, frozen=True, omit_defaults=True):
    """Why somebody or something wants a retrain."""

    kind: TriggerKind
    id: str
    """The same trigger twice has the same one: fingerprint and start of an alert, the minute of a schedule."""
    at: datetime
    why: str
    by: str = ""
    window: str | None = None
    """The drift window that was seen; the run takes the newest."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Labels, annotations, statistics: what will be told of it later."""
    urgent: bool = False
    """A person's word that cooldown and budget do not hold this one up."""
    release: str | None = None
    """A release of the store that is proposed as it is: nothing is trained, but gate and canary are the same."""


class Step(Struct, frozen=True, omit_defaults=True):
    """One transition: written whole before anything else happens."""

    state: State
    at: datetime
    why: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


class Run(Struct, frozen=True, omit_defaults=True):
    """One retrain and its whole story."""

    key: str
    """``key_of``: the same work has the same one."""
    attempt: int
    """1 for the first run of a key."""
    trigger: Trigger
    steps: list[Step]

    @property
    def id(self) -> str:
        """Its name for people, files and branches."""
        return f"{self.key[:SHORT]}-{self.attempt}"

    @property
    def state(self) -> State:
        """Where it stands."""
        return self.steps[-1].state

    @property
    def ended(self) -> bool:
        """Whether nothing follows."""
        return self.state in ENDS

    def facts(self, state: State) -> dict[str, Any]:
        """What the newest step of that state found out; empty where there was none."""
        return next((step.facts for step in reversed(self.steps) if step.state == state), {})


class Policy(Struct, frozen=True):
    """Limits on how often anything is started."""

    cooldown: timedelta
    """After a run has ended; twice as long for each fruitless run in a row."""
    longest: timedelta
    """Longest cooldown, whatever was doubled."""
    week: int
    """Runs that may reach training in seven days."""


class Admission(Struct, frozen=True):
    """Whether a trigger starts a run."""

    attempt: int | None
    """None: it does not."""
    reason: Suppressed | None = None
    words: str = ""


class IllegalStep(TunectlError):
    """A step that the machine does not know: our bug."""


def key_of(window: str, config: str, code: str, base: str) -> str:
    """SHA-256 of what a retrain depends on: digests of window manifest and composed configuration, revisions of code and base."""
    return io.digest_value({"window": window, "config": config, "code": code, "base": base})


def begun(key: str, attempt: int, trigger: Trigger, at: datetime, facts: dict[str, Any]) -> Run:
    """A run that was just proposed."""
    return Run(key, attempt, trigger, [Step("proposed", at, trigger.why, facts)])


def advanced(run: Run, step: Step) -> Run:
    """The run after one more step; a clock that went back never makes a step older than the one before it.

    Raises  IllegalStep for one that may not follow.
    """
    if step.state not in NEXT[run.state]:
        allowed = ", ".join(sorted(NEXT[run.state])) or "nothing"
        raise IllegalStep(f"retrain {run.id}: {step.state} after {run.state}; allowed is {allowed}")
    return replace(run, steps=[*run.steps, replace(step, at=max(step.at, run.steps[-1].at))])


def admit(key: str, trigger: Trigger, runs: Sequence[Run], now: datetime, policy: Policy) -> Admission:
    """Whether ``trigger`` may start a run of ``key``, given all ``runs`` so far, the oldest first."""
    same = [run for run in runs if run.key == key]
    done = next((run for run in same if run.state in CONCLUDED), None)
    if done is not None:
        return Admission(None, "duplicate", f"retrain {done.id} with the same data, settings and code: {done.state}")
    active = next((run for run in runs if not run.ended), None)
    if active is not None:
        reason: Suppressed = "duplicate" if active.key == key else "busy"
        return Admission(None, reason, f"retrain {active.id} is {active.state}")
    return held_up(trigger, runs, now, policy) or Admission(len(same) + 1)


def held_up(trigger: Trigger, runs: Sequence[Run], now: datetime, policy: Policy) -> Admission | None:
    """Whether cooldown or budget hold ``trigger`` up, whatever its key is."""
    if trigger.urgent:
        return None
    until = rests_until(runs, now, policy, nags=trigger.kind in NAGS)
    if until is not None:
        words = f"the last retrain was {runs[-1].state}; the next one may start {_said(until)}"
        return Admission(None, "cooldown", words)
    spent = trained_within(runs, now)
    if spent >= policy.week:
        return Admission(None, "budget", f"{spent} retrains in seven days; {policy.week} are allowed")
    return None


def rests_until(runs: Sequence[Run], now: datetime, policy: Policy, *, nags: bool = False) -> datetime | None:
    """When the cooldown ends; None where it has, or nothing has run yet.

    A dismissal trained nothing, so nobody rests after it, but what ``nags`` does not ask the same person again in an hour.
    An end that lies further ahead than the cooldown itself was written by a clock that was wrong, and holds nobody up.
    """
    ended = [run for run in runs if run.ended]
    real = [run for run in ended if run.state != "dismissed"]
    rests = [(real[-1], _rest(real, policy))] if real else []
    if nags and ended and ended[-1].state == "dismissed":
        rests.append((ended[-1], policy.cooldown))
    moments = [(run.steps[-1].at, rest) for run, rest in rests]
    return max((at + rest for at, rest in moments if at <= now + rest and now < at + rest), default=None)


def _rest(ended: Sequence[Run], policy: Policy) -> timedelta:
    """The cooldown after the last of these runs; in seconds, because a year of rejections doubles beyond what a timedelta holds."""
    fruitless = sum(1 for _ in takewhile(lambda run: run.state in FRUITLESS, reversed(ended)))
    doubled = policy.cooldown.total_seconds() * 2.0 ** min(fruitless, 64)
    return timedelta(seconds=min(doubled, policy.longest.total_seconds()))


def trained_within(runs: Sequence[Run], now: datetime, span: timedelta = WEEK) -> int:
    """Runs that began training in the last ``span``; what lies further ahead was written by a clock that was wrong."""
    return sum(any(step.state == "training" and abs(now - step.at) < span for step in run.steps) for run in runs)


def _said(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"

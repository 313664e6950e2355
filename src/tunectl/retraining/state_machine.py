"""The retrain state machine: what may follow what, and what a run's key is. Pure. Who may start one: ``retraining/rate_limits.py``.

    proposed -> [awaiting_approval] -> data_gate -> training -> evaluating -> staged -> canary -> promoted
                                                                                     rejected | withdrawn | failed |
                                                                                     dismissed | insufficient

A step that begins work is written before that work, one that ends it after, and all work may be done twice: so whoever comes back
after a kill knows where to go on. Nothing here looks at a clock: times are given, in UTC.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

from msgspec import Struct, field
from msgspec.structs import replace

from tunectl.artifacts import atomic_io
from tunectl.artifacts.names import ContentId, RecordName
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
    "withdrawn",
    "failed",
    "dismissed",
    "insufficient",
]
TriggerKind = Literal["alert", "poll", "schedule", "person"]
"""alert: a webhook. poll: the same drift, found by looking. schedule: a cron schedule. person: ``tunectl retrain request``."""
Suppressed = Literal["duplicate", "busy", "cooldown", "budget", "no_drift"]
"""Why nothing was started. duplicate: that very run is concluded. busy: another runs. no_drift: an alert, but no such window."""

# withdrawn: the canary did harm, so its release was taken off the traffic; the champion never changed.
CONCLUDED: Final[frozenset[State]] = frozenset(("promoted", "rejected", "withdrawn", "dismissed", "insufficient"))
"""Ends that an equal key is not run again after; ``failed`` is an end, too, but may be tried again."""
ENDS: Final[frozenset[State]] = CONCLUDED | {"failed"}
NEXT: Final[dict[State, frozenset[State]]] = {
    "proposed": frozenset(("awaiting_approval", "data_gate", "dismissed", "failed")),
    "awaiting_approval": frozenset(("data_gate", "promoted", "rejected", "dismissed", "failed")),
    "data_gate": frozenset(("training", "insufficient", "dismissed", "failed")),
    "training": frozenset(("evaluating", "rejected", "dismissed", "failed")),
    "evaluating": frozenset(("staged", "rejected", "insufficient", "failed")),
    "staged": frozenset(("awaiting_approval", "canary", "promoted", "rejected", "dismissed", "failed")),
    "canary": frozenset(("awaiting_approval", "promoted", "rejected", "withdrawn", "insufficient", "failed")),
    **{end: frozenset[State]() for end in ENDS},
}
"""What may follow a state."""
SHORT: Final = 12
"""Hexadecimal digits of a key where people read it."""


class Trigger(Struct, frozen=True, omit_defaults=True):
    """Why somebody or something wants a retrain."""

    kind: TriggerKind
    id: str
    """The same trigger twice has the same one: fingerprint and start of an alert, the minute of a schedule."""
    at: datetime
    message: str
    author: str = ""
    window: str | None = None
    """The drift window that was seen; the run takes the newest."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Labels, annotations, statistics: what will be told of it later."""
    ignore_limits: bool = False
    """A person's word that cooldown and budget do not hold this one up."""
    release: ContentId | None = None
    """A release of the store that is proposed as it is: nothing is trained, but gate and canary are the same."""


class Transition(Struct, frozen=True, omit_defaults=True):
    """One transition: written whole before anything else happens."""

    state: State
    at: datetime
    message: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


class RetrainRun(Struct, frozen=True, omit_defaults=True):
    """One retrain and its whole story."""

    key: RecordName
    """``run_key``: the same work has the same one."""
    attempt: int
    """1 for the first run of a key."""
    trigger: Trigger
    steps: list[Transition]

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
        """Return the results of the newest step in that state; empty where there was none."""
        return next((step.facts for step in reversed(self.steps) if step.state == state), {})


class InvalidTransitionError(TunectlError):
    """A step that the machine does not know: our bug."""


def run_key(window: str, config: str, code: str, base: str) -> str:
    """Return SHA-256 of what a retrain depends on: digests of window manifest and composed configuration, revisions of code and base."""
    return atomic_io.sha256_json({"window": window, "config": config, "code": code, "base": base})


def new_run(key: str, attempt: int, trigger: Trigger, at: datetime, facts: dict[str, Any]) -> RetrainRun:
    """Return a run that was just proposed."""
    return RetrainRun(key, attempt, trigger, [Transition("proposed", at, trigger.message, facts)])


def apply_transition(run: RetrainRun, step: Transition) -> RetrainRun:
    """Return the run after one more step; a clock that went back never makes a step older than the one before it.

    Raises  InvalidTransitionError for one that may not follow.
    """
    if step.state not in NEXT[run.state]:
        allowed = ", ".join(sorted(NEXT[run.state])) or "nothing"
        raise InvalidTransitionError(f"retrain {run.id}: {step.state} after {run.state}; allowed is {allowed}")
    return replace(run, steps=[*run.steps, replace(step, at=max(step.at, run.steps[-1].at))])

"""The retrain state machine: allowed transitions, and the key of a run. Pure. Limits on starting one: ``retraining/rate_limits.py``.

    proposed -> [awaiting_approval] -> data_gate -> training -> evaluating -> staged -> canary -> promoted
                                                                                     rejected | withdrawn | failed |
                                                                                     dismissed | insufficient

A step that begins work is recorded before that work, one that ends it afterwards, and all work may be repeated: so after a kill the next
controller knows where to resume. Nothing here reads a clock: times are parameters, in UTC.
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
"""alert: a webhook. poll: the same drift, found by a check. schedule: a cron schedule. person: ``tunectl retrain request``."""
Suppressed = Literal["duplicate", "busy", "cooldown", "budget", "no_drift"]
"""Why no run was started. duplicate: that very run has been concluded. busy: another one runs. no_drift: an alert without a drift window."""

# withdrawn: the canary did harm, so its release was taken off the traffic; the champion never changed.
CONCLUDED: Final[frozenset[State]] = frozenset(("promoted", "rejected", "withdrawn", "dismissed", "insufficient"))
"""End states after which an equal key is not run again; ``failed`` is an end, too, but may be tried again."""
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
"""Allowed next states of each state."""
SHORT: Final = 12
"""Hexadecimal digits of a key that are shown to people."""


class Trigger(Struct, frozen=True, omit_defaults=True):
    """A request to retrain: an alert, a schedule, a person or a proposed release, with the reason."""

    kind: TriggerKind
    id: str
    """Equal for the same trigger: fingerprint and start of an alert, the minute of a schedule."""
    at: datetime
    message: str
    author: str = ""
    window: str | None = None
    """The drift window that was found; the run takes the newest."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Labels, annotations, statistics, for the report."""
    ignore_limits: bool = False
    """Whether a person let it start in spite of cooldown and budget."""
    release: ContentId | None = None
    """An existing release that is proposed: nothing is trained, but gate and canary are the same."""


class Transition(Struct, frozen=True, omit_defaults=True):
    """One step of a run into ``state``; recorded completely before anything else happens."""

    state: State
    at: datetime
    message: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


class RetrainRun(Struct, frozen=True, omit_defaults=True):
    """Record of one retrain: its trigger and all transitions so far."""

    key: RecordName
    """Result of ``run_key``: equal for the same work."""
    attempt: int
    """1 for the first run of a key."""
    trigger: Trigger
    steps: list[Transition]

    @property
    def id(self) -> str:
        """Name of the run for people, files and branches."""
        return f"{self.key[:SHORT]}-{self.attempt}"

    @property
    def state(self) -> State:
        """Current state of the run."""
        return self.steps[-1].state

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.state in ENDS

    def facts(self, state: State) -> dict[str, Any]:
        """Return the facts of the newest step in ``state``; empty where there was none."""
        return next((step.facts for step in reversed(self.steps) if step.state == state), {})


class InvalidTransitionError(TunectlError):
    """A transition that the state machine does not allow; a bug of tunectl."""


def run_key(window: str, config: str, code: str, base: str) -> str:
    """Return the SHA-256 of a retrain's inputs: digests of window manifest and composed configuration, revisions of code and base."""
    return atomic_io.sha256_json({"window": window, "config": config, "code": code, "base": base})


def new_run(key: str, attempt: int, trigger: Trigger, at: datetime, facts: dict[str, Any]) -> RetrainRun:
    """Return a new run in the state proposed; ``attempt`` is 1 for the first run of ``key``, ``facts`` are its frozen inputs."""
    return RetrainRun(key, attempt, trigger, [Transition("proposed", at, trigger.message, facts)])


def apply_transition(run: RetrainRun, step: Transition) -> RetrainRun:
    """Return ``run`` with one more step, whose time is at least that of the step before, also after the clock was set back.

    Raises  InvalidTransitionError for a step that is not allowed.
    """
    if step.state not in NEXT[run.state]:
        allowed = ", ".join(sorted(NEXT[run.state])) or "nothing"
        raise InvalidTransitionError(
            f"retrain {run.id}: {step.state} after {run.state}; allowed is {allowed}",
            hint="a bug of tunectl: please report it",
        )
    return replace(run, steps=[*run.steps, replace(step, at=max(step.at, run.steps[-1].at))])

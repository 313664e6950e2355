"""What ``tunectl status`` says of the loop, as ``--json`` prints it: champion, traffic, drift, retrains, and what waits for a person."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct, field

from tunectl.artifacts.canary_state import CanaryState
from tunectl.artifacts.records import DriftVerdict
from tunectl.registry.release_state import ChampionPointer
from tunectl.retraining.state_machine import State, TriggerKind

Program = Literal["runs", "stopped", "never"]
"""runs: its lock is held. stopped: it was here once. never: it has not run in this project."""


class Traffic(Struct, frozen=True):
    """What was asked in the last ``hours``."""

    hours: float
    requests: int
    answered: int
    people: int
    feedback: dict[str, int]
    """By kind, on these requests."""
    newest: datetime | None
    """When somebody last asked; None: never."""


class Drift(Struct, frozen=True):
    """The newest closed window: the champion's, where it has one."""

    window: str
    release: str
    verdict: DriftVerdict
    reason: str
    until: datetime
    rows: int
    evidence: float
    """Orders of magnitude by which what was seen is rarer than chance."""
    evidence_required: float
    signals: list[str]
    """What shifted."""
    too_small_for: float | None = None
    """The declared smallest effect, where windows of this size never add up to it."""


class Retrain(Struct, frozen=True):
    """One retrain as it stands."""

    id: str
    state: State
    at: datetime
    """Of its newest step."""
    trigger: TriggerKind
    why: str
    """Why it was started."""
    reason: str
    """Why it stands where it does."""


class NextSchedule(Struct, frozen=True):
    """The next slot of a schedule; one that lies behind was missed, and is taken up once a controller runs."""

    schedule: str
    cron: str
    at: datetime


class PendingApproval(Struct, frozen=True):
    """Something that a person has to do."""

    what: str
    until: datetime | None = None
    """Then it is decided without them."""
    link: str | None = None
    page: str = ""
    """Path of the console's page about it."""


class StatusReport(Struct, frozen=True):
    """All of it; None is what there is not yet, or what ``troubles`` says cannot be told."""

    champion: ChampionPointer | None = None
    challenger: CanaryState | None = None
    releases: int = 0
    traffic: Traffic | None = None
    monitor: Program = "never"
    drift: Drift | None = None
    controller: Program = "never"
    approval: Literal["none", "required"] = "required"
    """Whether a drift retrains by itself or a person is asked."""
    now: Retrain | None = None
    last: Retrain | None = None
    next: list[NextSchedule] = field(default_factory=list)
    """Of the schedules, the soonest first."""
    rests_until: datetime | None = None
    """No retrain starts before, unless a person insists."""
    budget: tuple[int, int] = (0, 0)
    """Retrains that began to train in the last seven days, and how many may."""
    waits: list[PendingApproval] = field(default_factory=list)
    troubles: dict[str, str] = field(default_factory=dict)
    """By part: why it cannot be told."""

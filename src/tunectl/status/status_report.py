"""Data of ``tunectl status``, as ``--json`` prints it: champion, traffic, drift, retrains, and what needs a person."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct, field

from tunectl.artifacts.canary_state import CanaryState
from tunectl.artifacts.records import DriftVerdict
from tunectl.registry.release_state import ChampionPointer
from tunectl.retraining.state_machine import State, TriggerKind

Program = Literal["runs", "stopped", "never"]
"""runs: its lock is held. stopped: it ran before. never: it has not run in this project."""


class Traffic(Struct, frozen=True):
    """Numbers of requests, users and feedback in the last ``hours``."""

    hours: float
    requests: int
    answered: int
    people: int
    feedback: dict[str, int]
    """Number of feedback records by kind, on these requests."""
    newest: datetime | None
    """Time of the newest request; None: there is none."""


class Drift(Struct, frozen=True):
    """Result of the newest drift window that was closed: the champion's, if it has one."""

    window: str
    release: str
    verdict: DriftVerdict
    reason: str
    until: datetime
    rows: int
    evidence: float
    """Orders of magnitude by which the observation is rarer than chance."""
    evidence_required: float
    signals: list[str]
    """Shifted signals."""
    too_small_for: float | None = None
    """The declared smallest effect, where windows of this size can never detect it."""


class Retrain(Struct, frozen=True):
    """State of one retrain: its newest step, its trigger, and the reasons of both."""

    id: str
    state: State
    at: datetime
    """Time of its newest step."""
    trigger: TriggerKind
    why: str
    """Reason of its start."""
    reason: str
    """Reason of its current state."""


class NextSchedule(Struct, frozen=True):
    """Next time of one retrain schedule; one in the past was missed, and is handled once a controller runs."""

    schedule: str
    cron: str
    at: datetime


class PendingApproval(Struct, frozen=True):
    """A decision that a person has to make, with its deadline and where to make it."""

    what: str
    until: datetime | None = None
    """Deadline; after it the controller decides without a person."""
    link: str | None = None
    page: str = ""
    """Path of the console's page about it."""


class StatusReport(Struct, frozen=True):
    """All that ``tunectl status --json`` prints; None for parts that do not exist yet, or that ``troubles`` names as unreadable."""

    champion: ChampionPointer | None = None
    challenger: CanaryState | None = None
    releases: int = 0
    traffic: Traffic | None = None
    monitor: Program = "never"
    drift: Drift | None = None
    controller: Program = "never"
    approval: Literal["none", "required"] = "required"
    """Whether a retrain on drift needs a person's approval."""
    now: Retrain | None = None
    last: Retrain | None = None
    next: list[NextSchedule] = field(default_factory=list)
    """Next slots of the schedules, the soonest first."""
    rests_until: datetime | None = None
    """End of the cooldown; None where there is none. A person can start a retrain before."""
    budget: tuple[int, int] = (0, 0)
    """Retrains that began training in the last seven days, and the limit."""
    waits: list[PendingApproval] = field(default_factory=list)
    troubles: dict[str, str] = field(default_factory=dict)
    """Why a part cannot be read, by part."""

"""Records of a sweep and its trials, for the table, the JSON and the page."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

TrialState = Literal["waiting", "running", "complete", "pruned", "failed"]


class SweepDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """Settings, seed, overrides and commit of a sweep, which must be equal for trials to be comparable; stored with the sweep."""

    section: dict[str, Any]
    """The ``sweep`` section."""
    seed: int
    overrides: list[str]
    """Overrides of every trial."""
    commit: str
    """The commit that every trial builds."""
    project: str

    def describe_difference(self, other: SweepDefinition) -> str:
        """Return a text about the settings that differ; empty if trials of both definitions are comparable."""
        names = [name for name in COMPARED if self.section.get(name) != other.section.get(name)]
        return ", ".join(
            names + [name for name in ("seed", "overrides") if getattr(self, name) != getattr(other, name)]
        )


COMPARED = ("space", "only_if", "objective", "stage", "sampler", "pruner", "start")
"""Settings of the section that may not change while a sweep runs."""


class TrialClaim(msgspec.Struct, frozen=True, kw_only=True):
    """A trial that a worker has claimed and builds: its number, overrides, and attempt."""

    number: int
    id: int
    """Optuna's id."""
    overrides: list[str]
    attempt: int
    """1 for the first attempt."""
    start: bool
    """Whether it has the current settings."""


class TrialOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Record of how a trial ended: its objective values or the reason of its failure, seconds, and stages built and reused."""

    state: Literal["complete", "pruned", "failed"]
    values: list[float] = []
    """Value of each objective, in their order."""
    reason: str = ""
    seconds: float = 0.0
    stages: int = 0
    """Stages that the trial needs."""
    reused: int = 0
    """Of these, stages that DVC's cache had."""


class TrialSummary(msgspec.Struct, frozen=True, kw_only=True):
    """State and results of one trial, for the table and the JSON of ``tunectl sweep show``."""

    number: int
    state: TrialState
    values: list[float] | None
    settings: dict[str, Any]
    overrides: list[str]
    start: bool
    """Whether it is the trial with the project's current settings."""
    attempts: int
    steps: int
    """Last optimizer step at which it reported a validation loss."""
    seconds: float | None
    stages: int
    reused: int
    reason: str


class SweepConfirmation(msgspec.Struct, frozen=True, kw_only=True):
    """Result of comparing the best trial with the current settings on the test split."""

    trial: int
    system: str
    """System that was compared: tuned, or aligned."""
    metric: str
    """The metric ``evaluate.gate.primary_metric``."""
    inputs: int
    """Number of test inputs that both trials answered."""
    start: float
    """The metric of the trial with the current settings, on those inputs."""
    best: float
    """The metric of trial ``trial``, the best by the sweep's objective, on the same inputs."""
    low: float | None
    """Lower end of the paired interval of best minus start; null where it is undefined."""
    high: float | None
    confidence: float
    verdict: Literal["better", "no_difference", "worse"]


class SweepSummary(msgspec.Struct, frozen=True, kw_only=True):
    """State of a whole sweep at one moment, as ``tunectl sweep show --json`` prints it."""

    name: str
    definition: SweepDefinition
    stopped: bool
    trials: list[TrialSummary]
    best: list[int]
    """Number of the best trial; with several objectives, those of the front."""
    confirmation: SweepConfirmation | None
    """Null where the best trial was not compared with the start yet."""
    importance: dict[str, float]
    """Share of the spread of the first objective by setting; empty where too few trials have ended."""

    def find(self, number: int) -> TrialSummary | None:
        """Return the trial with that number."""
        return next((trial for trial in self.trials if trial.number == number), None)

    def count(self, state: TrialState) -> int:
        """Return the number of trials in a state."""
        return sum(1 for trial in self.trials if trial.state == state)

"""Screen Plan: what a build would run, why, and about how many tokens, gigabytes and minutes each stage takes.

The figures are those of ``tunectl estimate``, but no layer of the model is timed, which would load torch and take both cores.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct, field

from tunectl.backends.reports.render import format_seconds
from tunectl.backends.vcs import dvc_lock
from tunectl.console.acts import build_settings
from tunectl.console.build_state import STATE_TEXTS, find_running_stage
from tunectl.console.read_context import ProblemList, ReadContext, list_build_files, stamp_files
from tunectl.pipeline import background_build
from tunectl.pipeline.stage_status import StageStatus

RUNNING: Final = "A build is already running."
PENDING: Final = frozenset({"stale", "not built"})
ESTIMATE_SECONDS: Final = 60.0
"""Longest age of an estimate: a source that no settings name may have changed."""


class PlannedStage(Struct, frozen=True):
    """One stage that a build would run or may run; a figure is None where it cannot be told."""

    stage: str
    state: str
    certain: bool
    """False: it runs where what it reads changes."""
    why: str
    last_seconds: float | None
    """How long it took the last time."""
    tokens: int | None = None
    memory_gb: float | None = None
    """Peak memory in GB."""
    minutes: float | None = None
    basis: str = ""
    """What the estimate is based on."""

    @property
    def text(self) -> str:
        """Why the stage runs, and what it takes, in one line."""
        parts = [
            self.why or STATE_TEXTS.get(self.state, self.state) if self.certain else "runs if what it reads changes"
        ]
        if self.last_seconds is not None:
            parts.append(f"it took {format_seconds(self.last_seconds)} the last time")
        if self.minutes is not None:
            tokens = "" if self.tokens is None else f"{self.tokens:,} tokens, "
            parts.append(f"estimated: {tokens}{self.memory_gb:.1f} GB, {_format(self.minutes)}")
        return "; ".join(parts)


class PlanScreen(Struct, frozen=True):
    """Content of the screen Plan: the stages that a build would run, with these settings, and what they take."""

    overrides: list[str] = field(default_factory=list)
    """Settings that were typed, as key=value."""
    obstacle: str = ""
    """Why no build can start now; empty where one can."""
    total: int = 0
    """Number of stages of the pipeline."""
    stages: list[PlannedStage] = field(default_factory=list)
    """Stages that would run, and those behind them, in the order of the pipeline."""
    minutes: float | None = None
    """Estimated minutes of the stages that run for certain; None where they cannot be told."""
    all_minutes: float | None = None
    """The same if those behind them run, too."""
    memory_gb: float | None = None
    """Peak memory of all these stages."""
    free_gb: float | None = None
    """Memory that is free now."""
    model: str = ""
    """Size of the base model, and where the figures are from."""
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def pending(self) -> list[PlannedStage]:
        """The stages that run for certain."""
        return [stage for stage in self.stages if stage.certain]

    @property
    def totals(self) -> list[str]:
        """Sentences about all these stages: minutes and memory, and that the memory is not free; empty where nothing can be told."""
        if self.minutes is None or self.all_minutes is None or self.memory_gb is None:
            return []
        more = "" if len(self.stages) == len(self.pending) else f", {_format(self.all_minutes)} if all of these run"
        text = f"Estimated: about {_format(self.minutes)}{more}, and {self.memory_gb:.1f} GB of memory at the peak, for {self.model}."
        lacks = self.free_gb is not None and self.memory_gb > self.free_gb
        return [text, f"Only {self.free_gb:.1f} GB of memory are free now."] if lacks else [text]


def read_plan(context: ReadContext, query: Mapping[str, str]) -> PlanScreen:
    """Return what a build would run with the ``settings`` of ``query`` (key=value words), and what that takes; nothing is started.

    Settings can be typed with the scope operate alone, as for a build. A mistake in them is a problem of the screen.
    """
    problems = ProblemList()
    typed = query.get("settings", "") if "operate" in context.scopes else ""
    nothing: list[str] = []
    overrides = problems.attempt("settings", lambda: build_settings.parse_settings(typed), nothing)
    if problems.problems:
        return PlanScreen(problems=problems.problems)
    no_stages: list[StageStatus] = []
    status = problems.attempt("settings", lambda: list_stages(context, overrides), no_stages)
    return plan_build(context, overrides, status, problems)


def plan_build(
    context: ReadContext, overrides: Sequence[str], status: Sequence[StageStatus], problems: ProblemList
) -> PlanScreen:
    """Return what a build with ``overrides``, with which the stages have this ``status``, would run and take; what cannot be told goes to ``problems``."""
    no_stages: list[StageStatus] = []
    chosen = problems.attempt("graph", lambda: _choose_stages(context, status), no_stages)
    estimate: dict[str, Any] = {}
    if chosen and context.recording is None:
        estimate = problems.attempt("estimate", lambda: _estimate(context, overrides), estimate)
    costs = {cost["stage"]: cost for cost in estimate.get("stages", ())}
    stages = [_plan_stage(stage, costs.get(stage.stage)) for stage in chosen]
    known = bool(costs)
    return PlanScreen(
        list(overrides),
        find_obstacle(context),
        len(status),
        stages,
        sum(stage.minutes or 0.0 for stage in stages if stage.certain) if known else None,
        sum(stage.minutes or 0.0 for stage in stages) if known else None,
        max((stage.memory_gb or 0.0 for stage in stages), default=0.0) if known else None,
        _measure_free_memory(),
        f"{estimate['model']['parameters'] / 1e6:.0f}M parameters ({estimate['model']['source']})" if known else "",
        problems.problems,
    )


def _format(minutes: float) -> str:
    return format_seconds(60 * minutes)


def find_obstacle(context: ReadContext) -> str:
    """Return why no build can start now; empty where one can."""
    if context.recording is not None:
        return "This project was recorded without its weights, so nothing can be built in it."
    is_building = background_build.find_build(context.layout) is not None or find_running_stage(context) is not None
    return RUNNING if is_building else ""


def list_stages(context: ReadContext, overrides: Sequence[str]) -> list[StageStatus]:
    """Return the state of each stage with ``overrides`` applied.

    Raises  ConfigError with every mistake; ArtifactError where dvc.lock is damaged.
    """
    if not overrides:
        return context.list_stages()
    from tunectl.config.loading import checks
    from tunectl.pipeline.stage_status import list_stage_status

    return list_stage_status(context.layout, checks.load_project_config(context.layout, overrides).root)


def _choose_stages(context: ReadContext, status: Sequence[StageStatus]) -> list[StageStatus]:
    """Return the stages that a build runs, and those that read what these write, directly or not."""
    above = dvc_lock.read_dependencies(context.layout.root)
    reached: set[str] = set()
    for stage in status:  # in the order of the pipeline
        if stage.state in PENDING or reached.intersection(above.get(stage.stage, ())):
            reached.add(stage.stage)
    return [stage for stage in status if stage.stage in reached]


def _estimate(context: ReadContext, overrides: Sequence[str]) -> dict[str, Any]:
    from tunectl.config.loading import checks
    from tunectl.pipeline import run_estimate

    def read() -> dict[str, Any]:
        root = checks.load_project_config(context.layout, overrides).root
        return run_estimate.estimate_run(context.layout, root, time_layer=False)

    stamp = stamp_files(list_build_files(context.layout))
    return context.cache.get(f"estimate {shlex.join(overrides)}", stamp, read, max_age=ESTIMATE_SECONDS)


def _plan_stage(status: StageStatus, cost: Mapping[str, Any] | None) -> PlannedStage:
    facts = (status.stage, status.state, status.state in PENDING, status.why, status.seconds)
    if cost is None:
        return PlannedStage(*facts)
    return PlannedStage(*facts, cost["tokens"], cost["memory_gb"], cost["minutes"], cost["basis"])


def _measure_free_memory() -> float | None:
    from tunectl.training import resource_check

    free = resource_check.available_memory()
    return None if free is None else round(free / 1e9, 1)

"""State of the build, one node per stage: up to date or why not, rows, seconds, verdict, and the progress of the running stage."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, Literal

from msgspec import Struct, field

from tunectl.artifacts import lock
from tunectl.artifacts.row_counts import ROW_COUNTS, RowCounts
from tunectl.backends.reports.render import format_seconds
from tunectl.console.read_context import ProblemList, ReadContext
from tunectl.data.pipeline_row_counts import WRITES
from tunectl.pipeline import stage_progress
from tunectl.pipeline.stage_status import StageChange, StageStatus
from tunectl.pipeline.stages import STAGES

NodeState = Literal["not built", "stale", "in the cache", "up to date", "switched off", "running", "failed", "unknown"]
STATE_TEXTS: Final[dict[str, str]] = {
    "not built": "not built yet",
    "stale": "out of date",
    "in the cache": "in DVC's cache",
    "up to date": "up to date",
    "switched off": "switched off",
    "running": "running",
    "failed": "failed",
    "unknown": "cannot be told",
}
"""Name that people read for each state."""


class NodeProgress(Struct, frozen=True):
    """Progress of the running stage: the newest bar of its progress journal."""

    label: str
    done: float
    total: float | None
    figures: dict[str, str] = field(default_factory=dict)
    seconds_left: float | None = None

    @property
    def share(self) -> float | None:
        """Completed share of the bar's steps, 0 to 1; None where the total is unknown."""
        return min(1.0, self.done / self.total) if self.total else None


class StageFailure(Struct, frozen=True):
    """Error of a stage that ended without a result."""

    message: str
    hint: str | None = None


class StageNode(Struct, frozen=True):
    """State of one stage, as a box of the build graph and in its JSON."""

    stage: str
    help: str
    """Description of the stage."""
    state: NodeState
    state_text: str = field(name="words")
    """The state in words."""
    changes: list[StageChange] = field(default_factory=list)
    """Why it would run again."""
    why: str = ""
    seconds: float | None = None
    verdict: str | None = None
    passed: bool | None = None
    """Verdict of its gate; None where it has none."""
    rows_in: int | None = None
    rows_kept: int | None = None
    rows_rejected: int | None = None
    progress: NodeProgress | None = None
    failure: StageFailure | None = None
    row_files: bool = False
    """Whether it has rows to show: a training stage keeps counts only, and writes no rows."""


class LastDuration(Struct, frozen=True):
    """How long stages took the last time they ran, together: what another run of them can be expected to take, if no setting makes it longer."""

    seconds: float
    never_run: list[str]
    """Those of them that have not run here; they are not in ``seconds``."""

    @property
    def text(self) -> str:
        """The duration in words, to go on a sentence; empty where no stage has run."""
        if not self.seconds:
            return ""
        without = f", without {', '.join(self.never_run)}: never run here" if self.never_run else ""
        return f"the last time these took {format_seconds(self.seconds)} together{without}"


def sum_last_seconds(stages: Sequence[tuple[str, float | None]]) -> LastDuration:
    """Return the sum of what stages, each with its seconds, took the last time; None: it never ran."""
    return LastDuration(
        sum(seconds or 0.0 for _, seconds in stages), [stage for stage, seconds in stages if seconds is None]
    )


def list_nodes(context: ReadContext, problems: ProblemList) -> list[StageNode]:
    """Return one node per stage, in the order of the pipeline; errors go to ``problems``."""
    no_stages: list[StageStatus] = []
    status = {one.stage: one for one in problems.attempt("stages", context.list_stages, no_stages)}
    running = find_running_stage(context)
    failure = problems.attempt("failure", lambda: context.read_json(context.layout.failure), None) or {}
    return [
        _build_node(context, problems, stage.name, stage.help, status.get(stage.name), running, failure)
        for stage in STAGES
    ]


def find_running_stage(context: ReadContext) -> str | None:
    """Return the name of the stage whose lock is held now; None where none runs."""
    path = context.layout.stage_lock
    if not lock.is_locked(path):
        return None
    try:
        match = re.match(r"stage (\w+)", path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return match[1] if match else None


def read_progress(context: ReadContext, stage: str) -> NodeProgress | None:
    """Return the newest progress bar of the stage's journal; None without one."""
    progress = stage_progress.read_stage_progress(context.layout, stage)
    if progress is None or not progress.bars:
        return None
    bar = max(progress.bars, key=lambda one: one.updated_at)
    return NodeProgress(bar.label, bar.done, bar.total, bar.figures, bar.seconds_left)


def _build_node(
    context: ReadContext,
    problems: ProblemList,
    stage: str,
    text: str,
    status: StageStatus | None,
    running: str | None,
    failure: dict[str, Any],
) -> StageNode:
    folder = context.layout.artifact(stage)
    counts: RowCounts | None = problems.attempt(stage, lambda: context.read_json(folder / ROW_COUNTS, RowCounts), None)
    verdict = problems.attempt(stage, lambda: context.read_json(folder / "verdict.json"), None) or {}
    stage_failure = (
        StageFailure(str(failure["message"]), failure.get("hint"))
        if failure.get("stage") == stage and running is None
        else None
    )
    state: NodeState = (
        "running" if running == stage else "failed" if stage_failure else status.state if status else "unknown"
    )
    return StageNode(
        stage,
        text,
        state,
        STATE_TEXTS[state],
        status.changes if status else [],
        status.why if status else "",
        status.seconds if status else None,
        status.verdict if status else verdict.get("reason"),
        verdict.get("passed"),
        counts.rows_in if counts else None,
        counts.kept if counts else None,
        sum(counts.rejected.values()) if counts else None,
        read_progress(context, stage) if state == "running" else None,
        stage_failure,
        any((folder / name).is_file() for name in WRITES.get(stage, ())),
    )

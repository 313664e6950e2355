"""Progress of a stage, read from its progress journal: bars, figures over the steps, and how it ended."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Literal

import msgspec

from tunectl.artifacts import lock
from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.progress_journal import JournalEnd, JournalLine, JournalStart, JournalStep, read_lines

ProgressState = Literal["running", "finished", "failed", "stopped", "killed"]
"""stopped: by Ctrl-C. killed: the journal has no end, and no process holds the stage's lock."""


class BarProgress(msgspec.Struct, frozen=True):
    """Latest state of one progress bar of a stage: done, total, and the values that it reported. Times are seconds since 1970."""

    label: str
    done: float
    total: float | None
    """Total; None where it is unknown."""
    started_at: float
    updated_at: float
    figures: dict[str, str]
    """Latest values by name, for example ``loss`` to ``1.203``."""
    curves: dict[str, list[tuple[float, float]]]
    """Points of ``done`` and value for each numeric figure."""

    @property
    def seconds_left(self) -> float | None:
        """Return the remaining seconds at the speed so far; None where it is unknown."""
        if not self.total or self.done <= 0 or self.updated_at <= self.started_at:
            return None
        return max(0.0, (self.updated_at - self.started_at) * (self.total - self.done) / self.done)


class StageProgress(msgspec.Struct, frozen=True):
    """Progress of a stage's running or last run, from its journal. Times are seconds since 1970."""

    stage: str
    state: ProgressState
    pid: int
    config: str
    """Digest of its configuration: if it differs from that in the stage's JSON, this is an old run."""
    started_at: float
    updated_at: float
    """Time of the last line."""
    message: str
    """Why it failed."""
    bars: list[BarProgress]
    """Bars in the order in which they began."""


def read_stage_progress(layout: ProjectPaths, stage: str) -> StageProgress | None:
    """Return the progress in the journal of a stage; None where there is no readable one."""
    lines = read_lines(layout.progress(stage))
    if not lines or not isinstance(lines[0], JournalStart):
        return None
    start, end = lines[0], lines[-1]
    if isinstance(end, JournalEnd):
        return _describe(start, end.outcome, lines, end.message)
    return _describe(start, "running" if _is_running(layout, start) else "killed", lines)


def _describe(start: JournalStart, state: ProgressState, lines: list[JournalLine], message: str = "") -> StageProgress:
    return StageProgress(
        stage=start.stage,
        state=state,
        pid=start.pid,
        config=start.config,
        started_at=start.at,
        updated_at=lines[-1].at,
        message=message,
        bars=_collect_bars([line for line in lines if isinstance(line, JournalStep)]),
    )


def _is_running(layout: ProjectPaths, start: JournalStart) -> bool:
    """Return whether the process that began the journal still holds the stage's lock, which ends with it even by ``kill -9``."""
    if not lock.is_locked(layout.stage_lock):
        return False
    try:
        holder = layout.stage_lock.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return holder.startswith(f"stage {start.stage}, process {start.pid},")


def _collect_bars(steps: list[JournalStep]) -> list[BarProgress]:
    """Return one entry per label. A label that begins again, such as a second training, replaces the first."""
    runs: dict[str, list[JournalStep]] = {}
    for step in steps:
        before = runs.get(step.label)
        if before is None or step.done < before[-1].done:
            runs[step.label] = [step]
        else:
            before.append(step)
    return [
        BarProgress(
            label=label,
            done=run[-1].done,
            total=run[-1].total,
            started_at=run[0].at,
            updated_at=run[-1].at,
            figures=run[-1].figures,
            curves=_collect_curves(run),
        )
        for label, run in runs.items()
    ]


def _collect_curves(run: list[JournalStep]) -> dict[str, list[tuple[float, float]]]:
    curves: dict[str, list[tuple[float, float]]] = {}
    for step in run:
        for name, text in step.figures.items():
            with suppress(ValueError):
                value = float(text.replace(",", ""))
                if math.isfinite(value):
                    curves.setdefault(name, []).append((step.done, value))
    return curves

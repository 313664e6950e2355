"""The curve of a stage: of its newest piece of work while it runs, else of the newest run in the ledger that has one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct, field

from tunectl.console.read_context import ProblemList, ReadContext
from tunectl.console.screens.run_curve import CurveAxis, CurveSeries
from tunectl.console.screens.runs import try_load
from tunectl.pipeline import run_ledger, stage_progress

MAX_POINTS: Final = 200
"""Steps that are drawn; of more, those in between are left out."""
LEDGER: Final = 5
"""Newest runs that are looked through."""


class StageCurve(Struct, frozen=True):
    """Figures of a stage over its steps."""

    title: str
    x: CurveAxis
    series: list[CurveSeries] = field(default_factory=list)


def read_stage_curve(context: ReadContext, problems: ProblemList, stage: str) -> StageCurve | None:
    """Return the losses of a stage over its steps, or its first figure where it has no loss; None without two points."""
    progress = stage_progress.read_stage_progress(context.layout, stage)
    for bar in sorted(progress.bars if progress else (), key=lambda one: -one.updated_at):
        curve = _build_curve(f"{bar.label}, {progress.state if progress else ''}", bar.curves)
        if curve is not None:
            return curve
    names: list[str] = problems.attempt("runs", lambda: run_ledger.list_runs(context.layout), [])
    for name in names[:LEDGER]:
        record = try_load(context, problems, name)
        curve = _build_curve(f"run {name}", record.curves.get(stage, {})) if record else None
        if curve is not None:
            return curve
    return None


def _build_curve(title: str, curves: Mapping[str, Sequence[tuple[float, float]]]) -> StageCurve | None:
    losses = [name for name in curves if "loss" in name]
    picked = {name.replace("_", " "): dict(curves[name]) for name in losses or list(curves)[:1]}
    steps = sorted({step for points in picked.values() for step in points})
    if len(steps) < 2:
        return None
    apart = -(-len(steps) // MAX_POINTS)
    steps = steps[::-apart][::-1]  # the newest is always among them
    series = [CurveSeries(name, [points.get(step) for step in steps]) for name, points in picked.items()]
    return StageCurve(title, CurveAxis("step", [float(step) for step in steps]), series)

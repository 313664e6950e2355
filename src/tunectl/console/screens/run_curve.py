"""One curve of two runs over the same steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct, field

from tunectl.console.read_context import NotFoundError, ProblemList
from tunectl.console.screens.runs import try_load
from tunectl.pipeline import run_ledger

if TYPE_CHECKING:
    from tunectl.console.read_context import ReadContext


class CurveAxis(Struct, frozen=True):
    """The training steps on the x axis of a curve."""

    label: str
    values: list[float]


class CurveSeries(Struct, frozen=True):
    """The values of one run at the steps of the axis; None where it has none."""

    label: str
    values: list[float | None]


class CurveScreen(Struct, frozen=True):
    """One training curve of two runs, over the steps of either."""

    title: str
    x: CurveAxis
    series: list[CurveSeries]
    problems: dict[str, str] = field(default_factory=dict)


def read_run_curve(context: ReadContext, query: Mapping[str, str]) -> CurveScreen:
    """Return one training curve of two runs, at all steps of either.

    Raises  NotFoundError where neither has it.
    """
    problems = ProblemList()
    names: list[str] = problems.attempt("runs", lambda: run_ledger.list_runs(context.layout), [])
    stage, figure = query.get("stage", ""), query.get("figure", "")
    curves: dict[str, dict[int, float]] = {}
    for name in dict.fromkeys(query.get(part, "") for part in ("old", "new")):
        record = try_load(context, problems, name) if name in names else None
        points = record.curves.get(stage, {}).get(figure) if record else None
        if points:
            curves[name] = dict(points)
    if not curves and not problems.problems:
        raise NotFoundError(figure)
    steps = sorted({step for points in curves.values() for step in points})
    return CurveScreen(
        f"{stage}: {figure.replace('_', ' ')}",
        CurveAxis("step", [float(step) for step in steps]),
        [CurveSeries(name, [points.get(step) for step in steps]) for name, points in curves.items()],
        problems.problems,
    )

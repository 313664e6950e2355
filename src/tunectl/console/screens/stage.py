"""Screen of one stage: why it would run again, what it read and wrote, its settings, its rows and rejects by reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct, field

from tunectl.artifacts.manifest import NAME, Manifest
from tunectl.artifacts.row_counts import ROW_COUNTS, RowCounts
from tunectl.console.build_state import StageNode, list_nodes
from tunectl.console.links import link
from tunectl.console.read_context import NotFoundError, ProblemList, ReadContext
from tunectl.console.screens.run_curve import CurveAxis, CurveSeries
from tunectl.console.screens.runs import try_load
from tunectl.pipeline import run_ledger, stage_progress
from tunectl.pipeline.stage_status import format_value

LEARNS: Final = {
    "cpt": ("split", "documents.jsonl", "documents.jsonl"),
    "sft": ("split", "train.jsonl", "validation.jsonl"),
    "reward": ("preferences", "train.jsonl", "validation.jsonl"),
    "align": ("split", "train.jsonl", "validation.jsonl"),
}
"""Trainer to the stage whose rows it reads: the file that it learns from, and the one that it is validated with."""


MAX_POINTS: Final = 200
"""Steps that are drawn; of more, those in between are left out."""
LEDGER: Final = 5
"""Newest runs that are looked through."""


class StageCurve(Struct, frozen=True):
    """The values of a stage's training over its steps, to be drawn as lines."""

    title: str
    x: CurveAxis
    series: list[CurveSeries] = field(default_factory=list)


class StageScreen(Struct, frozen=True):
    """Content of the screen of one stage: state, settings, files, metrics, rejects and curve."""

    node: StageNode
    settings: list[tuple[str, str]]
    """Settings by dotted name, as of the stage's last run."""
    inputs: dict[str, str]
    """Digest of each input, by the stage that wrote it."""
    outputs: dict[str, str]
    """Digest of each file."""
    metrics: list[tuple[str, float]]
    rows_of: dict[str, str]
    """Metric to the address of the rows that it is of; empty where it is of none."""
    rejected: dict[str, int]
    """Number of rows by reason, most first."""
    curve: str = ""
    """What the curve is of; empty: there is none."""
    x: CurveAxis | None = None
    series: list[CurveSeries] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)


def read_stage(context: ReadContext, query: Mapping[str, str]) -> StageScreen:
    """Return the stage with the name ``query["stage"]``.

    Raises  NotFoundError where there is no such stage.
    """
    problems, name = ProblemList(), query["stage"]
    node = next((one for one in list_nodes(context, problems) if one.stage == name), None)
    if node is None:
        raise NotFoundError(name)
    folder, layout = context.layout.artifact(name), context.layout
    manifest: Manifest | None = problems.attempt("manifest", lambda: context.read_json(folder / NAME, Manifest), None)
    record = problems.attempt("settings of the last run", lambda: context.read_json(layout.config(name)), None) or {}
    metrics = problems.attempt("metrics", lambda: context.read_json(layout.metrics(name)), None) or {}
    counts: RowCounts | None = problems.attempt("rows", lambda: context.read_json(folder / ROW_COUNTS, RowCounts), None)
    rejected = sorted((counts.rejected if counts else {}).items(), key=lambda item: -item[1])
    measured = [(key, value) for key, value in metrics.items() if isinstance(value, int | float) and key != "seconds"]
    curve = read_stage_curve(context, problems, name)
    return StageScreen(
        node,
        [(path, format_value(value)) for path, value in _flatten(record.get("settings"), "")],
        manifest.inputs if manifest else {},
        manifest.outputs if manifest else {},
        measured,
        {key: _locate_rows(context, node, key) for key, _ in measured},
        dict(rejected),
        curve.title if curve else "",
        curve.x if curve else None,
        curve.series if curve else [],
        problems.problems,
    )


def _locate_rows(context: ReadContext, node: StageNode, metric: str) -> str:
    if node.stage == "evaluate":
        return link("/results/answers")
    if node.row_files:
        return link("/data/rows", stage=node.stage)
    source, *files = LEARNS.get(node.stage, ("",))
    file = files["validation" in metric] if files else ""
    path = context.layout.artifact(source) / file
    return link("/data/rows", stage=source, file=file) if path.is_file() and path.stat().st_size else ""


def _flatten(value: Any, path: str) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        return [
            entry for key, inner in value.items() for entry in _flatten(inner, f"{path}.{key}" if path else str(key))
        ]
    return [(path, value)] if path else []


def read_stage_curve(context: ReadContext, problems: ProblemList, stage: str) -> StageCurve | None:
    """Return the losses of a stage over its steps, or its first other value where it has no loss; None with fewer than two points."""
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

"""Screen of one stage: why it would run again, what it read and wrote, its settings, its rows and rejects by reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct, field

from tunectl.artifacts.manifest import NAME, Manifest
from tunectl.artifacts.row_counts import ROW_COUNTS, RowCounts
from tunectl.console.build_state import StageNode, list_nodes
from tunectl.console.links import link
from tunectl.console.read_context import NotFoundError, ProblemList, ReadContext
from tunectl.console.screens.run_curve import CurveAxis, CurveSeries
from tunectl.console.stage_curve import read_stage_curve
from tunectl.pipeline.stage_status import format_value

LEARNS: Final = {
    "cpt": ("split", "documents.jsonl", "documents.jsonl"),
    "sft": ("split", "train.jsonl", "validation.jsonl"),
    "reward": ("preferences", "train.jsonl", "validation.jsonl"),
    "align": ("split", "train.jsonl", "validation.jsonl"),
}
"""Trainer to the stage whose rows it reads: the file that it learns from, and the one that it is validated with."""


class StageScreen(Struct, frozen=True):
    """The current state of one stage."""

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
    """Read the stage that ``query["stage"]`` names.

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

"""Screen of one stage: why it would run again, what it read and wrote, its settings, its rows and rejects by reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from tunectl.artifacts.manifest import NAME, Manifest
from tunectl.artifacts.row_counts import ROW_COUNTS, RowCounts
from tunectl.console.build_state import StageNode, list_nodes
from tunectl.console.read_context import NotFoundError, ProblemList, ReadContext
from tunectl.pipeline.stage_status import format_value


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
    rejected: dict[str, int]
    """Number of rows by reason, most first."""
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
    return StageScreen(
        node,
        [(path, format_value(value)) for path, value in _flatten(record.get("settings"), "")],
        manifest.inputs if manifest else {},
        manifest.outputs if manifest else {},
        [(key, value) for key, value in metrics.items() if isinstance(value, int | float) and key != "seconds"],
        dict(rejected),
        problems.problems,
    )


def _flatten(value: Any, path: str) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        return [
            entry for key, inner in value.items() for entry in _flatten(inner, f"{path}.{key}" if path else str(key))
        ]
    return [(path, value)] if path else []

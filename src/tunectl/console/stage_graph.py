"""Draw the pipeline as an SVG of links: three lanes with fixed positions (data, model, people), lines from dvc.yaml. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from tunectl.artifacts.records import truncate
from tunectl.console.build_state import StageNode

POSITIONS: Final[dict[str, tuple[int, int]]] = {
    "ingest": (0, 0),
    "curate": (1, 0),
    "split": (2, 0),
    "model": (1, 1),
    "cpt": (2, 1),
    "sft": (3, 1),
    "align": (4, 1),
    "evaluate": (5, 1),
    "package": (6, 1),
    "feedback": (0, 2),
    "preferences": (3, 2),
    "reward": (4, 2),
}
"""Column and lane of each stage. The line between two stages in one column is vertical."""
LANES: Final = ("Data", "Model", "People")
WIDTH, HEIGHT, GAP_X, GAP_Y, TOP = 126, 66, 24, 40, 22


def draw_graph(nodes: Sequence[StageNode], above: Mapping[str, Sequence[str]]) -> str:
    """Return the pipeline as SVG; ``above`` has for each stage the stages that it reads."""
    there = {node.stage for node in nodes if node.stage in POSITIONS}
    lines = "".join(
        _draw_line(one, stage) for stage in there for one in above.get(stage, ()) if stage in POSITIONS and one in there
    )
    width = 7 * WIDTH + 6 * GAP_X + 4
    height = TOP + 3 * HEIGHT + 2 * (GAP_Y + TOP) + 4
    lanes = "".join(f'<text class="lane" x="2" y="{_top(row) - 8}">{name}</text>' for row, name in enumerate(LANES))
    boxes = "".join(_draw_node(node) for node in nodes if node.stage in POSITIONS)
    return (
        f'<svg class="graph" role="group" aria-label="Stages of the build" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">{lanes}{lines}{boxes}</svg>'
    )


def _top(row: int) -> int:
    return TOP + row * (HEIGHT + GAP_Y + TOP)


def _corner(stage: str) -> tuple[int, int]:
    column, row = POSITIONS[stage]
    return 2 + column * (WIDTH + GAP_X), _top(row)


def _draw_line(begin: str, end: str) -> str:
    (x1, y1), (x2, y2) = _corner(begin), _corner(end)
    if x1 == x2:
        down = y2 > y1
        return (
            f'<path class="edge" d="M{x1 + WIDTH / 2} {y1 + HEIGHT if down else y1} V{y2 if down else y2 + HEIGHT}"/>'
        )
    left, right, bend = x1 + WIDTH, x2, GAP_X / 2
    return (
        f'<path class="edge" d="M{left} {y1 + HEIGHT / 2} C{left + bend} {y1 + HEIGHT / 2} '
        f'{right - bend} {y2 + HEIGHT / 2} {right} {y2 + HEIGHT / 2}"/>'
    )


def _draw_node(node: StageNode) -> str:
    x, y = _corner(node.stage)
    share = node.progress.share if node.progress else None
    bar = (
        f'<rect class="bar" x="{x + 1}" y="{y + HEIGHT - 5}" width="{(WIDTH - 2) * share:.1f}" height="4" rx="2"/>'
        if share
        else ""
    )
    text = f"{node.state_text}, {share:.0%}" if share is not None else node.state_text
    return (
        f'<a href="/build/{node.stage}" id="node-{node.stage}" class="node {node.state.replace(" ", "-")}">'
        f'<rect class="box" x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="8"/>{bar}'
        f'<rect class="mark" x="{x}" y="{y + 8}" width="4" height="{HEIGHT - 16}" rx="2"/>'
        f'<text class="name" x="{x + 13}" y="{y + 21}">{node.stage}</text>'
        f'<text x="{x + 13}" y="{y + 39}">{escape(truncate(text, 22))}</text>'
        f'<text x="{x + 13}" y="{y + 55}">{escape(truncate(_summarize(node), 22))}</text></a>'
    )


def _summarize(node: StageNode) -> str:
    if node.rows_in is not None and node.rows_kept is not None and node.rows_rejected:
        return f"{node.rows_in:,} → {node.rows_kept:,}"
    if node.rows_kept is not None:
        return f"{node.rows_kept:,} rows"
    return f"{node.seconds:.0f} s" if node.seconds and node.seconds >= 1 else ""

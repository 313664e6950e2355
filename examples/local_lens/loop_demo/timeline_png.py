"""The timeline as a PNG, drawn with matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loop_demo.layout import WIDTH, compute_layout
from loop_demo.timeline import Category, Timeline, format_duration

COLORS: dict[Category, str] = {
    "normal": "#a9b0a4",
    "changed": "#e0a100",
    "active": "#2f7fb8",
    "good": "#1f9d63",
    "bad": "#cc4b37",
}
INK, DIM, LINE, PAPER = "#22241f", "#74776d", "#dcdad2", "#fbfaf7"
HEAD, TILES = 64, 74
DPI = 160


def draw_png(timeline: Timeline, path: Path) -> None:
    """Draw the timeline to ``path``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

    result = compute_layout(timeline)
    height = HEAD + TILES + result.height
    figure = Figure(figsize=(WIDTH / 100, height / 100), dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    axes.axis("off")

    def text(x: float, y: float, label: str, size: float = 8, color: str = INK, **options: Any) -> None:
        axes.text(x, y, label, fontsize=size, color=color, va="center", **options)

    text(24, 26, timeline.title, 15, weight="bold")
    when = f"{timeline.began:%Y-%m-%d %H:%M} UTC, {format_duration(timeline.seconds)}"
    text(24, 50, f"{when}; {timeline.score}; all times are measured", 8, DIM)
    for index, (number, what) in enumerate(timeline.figures[:6]):
        x = 24 + index * (WIDTH - 48) / min(6, len(timeline.figures))
        text(x, HEAD + 22, number, 14, weight="bold")
        text(x, HEAD + 46, what, 7, DIM)
    down = HEAD + TILES
    bottom = down + result.height - 26
    for label, x in result.ticks:
        axes.plot((x, x), (down + 4, bottom), color=LINE, linewidth=0.7, zorder=1)
        text(x, bottom + 13, label, 7, DIM, ha="center")
    for lane, y in result.lanes:
        text(24, down + y, lane, 8, DIM)
    for box in result.boxes:
        shape = FancyBboxPatch(
            (box.x, down + box.y), box.width, box.height, boxstyle="round,pad=0,rounding_size=3", facecolor=COLORS[box.category], linewidth=0, zorder=2
        )  # fmt: skip
        axes.add_patch(shape)
        if box.label:
            text(box.x + 6, down + box.y + box.height / 2, box.label, 7, "white")
    for dot in result.dots:
        axes.plot(dot.x, down + dot.y, "o", color=COLORS[dot.category], markersize=6, markeredgecolor=PAPER, zorder=3)
        if dot.label:
            text(dot.label_x, down + dot.y - 14, dot.label, 7, ha="center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, facecolor=PAPER, metadata={"Software": None})

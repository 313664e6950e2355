"""The layout of the timeline: positions of its bars, dots and labels. Both SVG and PNG are drawn from it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from loop_demo.timeline import Category, Mark, Timeline, format_duration

WIDTH, LEFT, RIGHT, TOP = 1120, 96, 24, 14
LANE_HEIGHT, BAR_HEIGHT = 46, 24
CHARACTER_WIDTH = 6.4
"""Width of a character of a label."""
STEPS = (10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
"""Seconds between two lines of the axis."""


@dataclass(frozen=True)
class Box:
    """A bar: its position in pixels, and its label if it fits."""

    x: float
    y: float
    width: float
    height: float
    category: Category
    label: str
    note: str


@dataclass(frozen=True)
class Dot:
    """A dot for a mark, and its label if it fits."""

    x: float
    y: float
    category: Category
    label: str
    note: str
    label_x: float
    """Horizontal center of the label."""


@dataclass(frozen=True)
class Drawing:
    """The whole drawing."""

    height: float
    lanes: tuple[tuple[str, float], ...]
    """Name and vertical center."""
    ticks: tuple[tuple[str, float], ...]
    """Label and horizontal position."""
    boxes: tuple[Box, ...]
    dots: tuple[Dot, ...]


def compute_layout(timeline: Timeline) -> Drawing:
    """Compute the positions of all parts of the drawing."""
    inside = WIDTH - LEFT - RIGHT
    per = inside / max(timeline.seconds, 1e-9)
    middles = {lane: TOP + LANE_HEIGHT * (row + 0.5) for row, lane in enumerate(timeline.lanes)}
    boxes = []
    for span in timeline.spans:
        x, width = LEFT + span.since * per, max(2.0, (span.until - span.since) * per)
        label = span.label if len(span.label) * CHARACTER_WIDTH + 10 < width else ""
        note = f"{span.label}, {format_duration(span.since)} to {format_duration(span.until)}. {span.note}".strip()
        boxes.append(Box(x, middles[span.lane] - BAR_HEIGHT / 2, width, BAR_HEIGHT, span.category, label, note))
    dots = [
        dot
        for lane in timeline.lanes
        for dot in _compute_dots((m for m in timeline.marks if m.lane == lane), middles[lane], per)
    ]
    step = next((item for item in STEPS if timeline.seconds / item <= 14), STEPS[-1])
    ticks = [(format_duration(index), LEFT + index * per) for index in range(0, int(timeline.seconds) + 1, step)]
    return Drawing(
        TOP + LANE_HEIGHT * len(middles) + 30, tuple(middles.items()), tuple(ticks), tuple(boxes), tuple(dots)
    )


def _compute_dots(marks: Iterable[Mark], middle: float, per: float) -> list[Dot]:
    """Compute the dots of one lane.

    A label that would overlap the previous one is omitted. The label of a result is moved to the right instead, and not repeated.
    """
    dots: list[Dot] = []
    free, before = 0.0, ""
    for item in sorted(marks, key=lambda mark: mark.at):
        x, width = LEFT + item.at * per, len(item.label) * CHARACTER_WIDTH
        at, ends = min(x, WIDTH - width / 2 - 4), item.category in ("good", "bad") and item.label != before
        label = item.label if at - width / 2 >= free or ends else ""
        at = max(at, free + width / 2) if label else at
        if label:
            free = at + width / 2 + 4
        before = item.label
        dots.append(
            Dot(x, middle, item.category, label, f"{item.label}, {format_duration(item.at)}. {item.note}".strip(), at)
        )
    return dots

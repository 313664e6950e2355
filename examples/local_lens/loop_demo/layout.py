"""The timeline as a drawing: where everything stands. Both the page (SVG) and the picture (PNG) are made of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from loop_demo.timeline import Mark, Timeline, Tone, length

WIDE, LEFT, RIGHT, TOP = 1120, 96, 24, 14
LANE, BAR = 46, 24
LETTER = 6.4
"""Width of a letter of a label."""
STEPS = (10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
"""Seconds between two lines of the axis."""


@dataclass(frozen=True)
class Box:
    """A bar: its place in pixels, and its label where it has room."""

    x: float
    y: float
    wide: float
    high: float
    tone: Tone
    label: str
    note: str


@dataclass(frozen=True)
class Dot:
    """A moment, and its label where it has room."""

    x: float
    y: float
    tone: Tone
    label: str
    note: str
    label_x: float
    """Middle of the label."""


@dataclass(frozen=True)
class Drawing:
    """All of it."""

    high: float
    lanes: tuple[tuple[str, float], ...]
    """Name and middle."""
    ticks: tuple[tuple[str, float], ...]
    """Time and place."""
    boxes: tuple[Box, ...]
    dots: tuple[Dot, ...]


def drawing(timeline: Timeline) -> Drawing:
    """Where everything stands."""
    inside = WIDE - LEFT - RIGHT
    per = inside / max(timeline.seconds, 1e-9)
    middles = {lane: TOP + LANE * (row + 0.5) for row, lane in enumerate(timeline.lanes)}
    boxes = []
    for span in timeline.spans:
        x, wide = LEFT + span.since * per, max(2.0, (span.until - span.since) * per)
        label = span.label if len(span.label) * LETTER + 10 < wide else ""
        note = f"{span.label}, {length(span.since)} to {length(span.until)}. {span.note}".strip()
        boxes.append(Box(x, middles[span.lane] - BAR / 2, wide, BAR, span.tone, label, note))
    dots = [
        dot
        for lane in timeline.lanes
        for dot in _dots((m for m in timeline.marks if m.lane == lane), middles[lane], per)
    ]
    step = next((item for item in STEPS if timeline.seconds / item <= 14), STEPS[-1])
    ticks = [(length(index), LEFT + index * per) for index in range(0, int(timeline.seconds) + 1, step)]
    return Drawing(TOP + LANE * len(middles) + 30, tuple(middles.items()), tuple(ticks), tuple(boxes), tuple(dots))


def _dots(marks: Iterable[Mark], middle: float, per: float) -> list[Dot]:
    """Moments of one lane.

    A label is left out where the one before it still stands. One that says how something ended always comes, if need be further
    to the right, but is not repeated.
    """
    dots: list[Dot] = []
    free, before = 0.0, ""
    for item in sorted(marks, key=lambda mark: mark.at):
        x, wide = LEFT + item.at * per, len(item.label) * LETTER
        at, ends = min(x, WIDE - wide / 2 - 4), item.tone in ("good", "bad") and item.label != before
        label = item.label if at - wide / 2 >= free or ends else ""
        at = max(at, free + wide / 2) if label else at
        if label:
            free = at + wide / 2 + 4
        before = item.label
        dots.append(Dot(x, middle, item.tone, label, f"{item.label}, {length(item.at)}. {item.note}".strip(), at))
    return dots

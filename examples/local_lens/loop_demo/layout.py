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
    for one in timeline.spans:
        x, wide = LEFT + one.since * per, max(2.0, (one.until - one.since) * per)
        label = one.label if len(one.label) * LETTER + 10 < wide else ""
        note = f"{one.label}, {length(one.since)} to {length(one.until)}. {one.note}".strip()
        boxes.append(Box(x, middles[one.lane] - BAR / 2, wide, BAR, one.tone, label, note))
    dots = [
        dot
        for lane in timeline.lanes
        for dot in _dots((m for m in timeline.marks if m.lane == lane), middles[lane], per)
    ]
    step = next((one for one in STEPS if timeline.seconds / one <= 14), STEPS[-1])
    ticks = [(length(at), LEFT + at * per) for at in range(0, int(timeline.seconds) + 1, step)]
    return Drawing(TOP + LANE * len(middles) + 30, tuple(middles.items()), tuple(ticks), tuple(boxes), tuple(dots))


def _dots(marks: Iterable[Mark], middle: float, per: float) -> list[Dot]:
    """Moments of one lane.

    A label is left out where the one before it still stands. One that says how something ended always comes, if need be further
    to the right, but is not repeated.
    """
    found: list[Dot] = []
    free, before = 0.0, ""
    for one in sorted(marks, key=lambda mark: mark.at):
        x, wide = LEFT + one.at * per, len(one.label) * LETTER
        at, ends = min(x, WIDE - wide / 2 - 4), one.tone in ("good", "bad") and one.label != before
        label = one.label if at - wide / 2 >= free or ends else ""
        at = max(at, free + wide / 2) if label else at
        if label:
            free = at + wide / 2 + 4
        before = one.label
        found.append(Dot(x, middle, one.tone, label, f"{one.label}, {length(one.at)}. {one.note}".strip(), at))
    return found

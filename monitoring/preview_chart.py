"""Charts of the previews, as SVG: lines, stacked areas, bars, and rows of states, over time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, isfinite, log10
from typing import Any

PALETTE = ("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#ffa6b0", "#96d98d", "#ca95e5",
           "#fade2a", "#37872d", "#1f60c4")  # fmt: skip
COLORS = {
    "green": "#73bf69", "red": "#f2495c", "orange": "#ff9830", "blue": "#5794f2", "text": "#ccccdc", "transparent": "#22252b",
    "purple": "#b877d9",
}  # fmt: skip
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 8, 20
"""Pixels around the plot."""
SMALLEST = 1e-4
"""Where a logarithmic axis begins, at the lowest."""
UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"))


@dataclass(frozen=True)
class Span:
    """What is shown of time, in seconds since 1970."""

    start: float
    end: float
    marks: tuple[tuple[float, float, str, str], ...] = ()
    """Annotations: from, to, text, color."""


@dataclass(frozen=True)
class Trace:
    """One line of a chart."""

    name: str
    points: Sequence[tuple[float, float]]
    color: str
    dashed: bool = False


def number(value: float, unit: str = "", decimals: int | None = None) -> str:
    """Return a number as people read it."""
    if unit == "percentunit":
        return f"{100 * value:z.{decimals if decimals is not None else 1}f} %"
    if unit == "s":
        size, name = next(((size, name) for size, name in UNITS if abs(value) >= size), UNITS[-1])
        return f"{value / size:.3g} {name}"
    for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {name}"
    text = f"{value:.{decimals}f}" if decimals is not None else f"{value:.3g}"
    return f"{text} /s" if unit == "reqps" else text


def chart(traces: Sequence[Trace], defaults: dict[str, Any], span: Span, step: int, width: int, height: int) -> str:
    """Lines, stacked areas or bars; ``defaults`` are the panel's field defaults."""
    custom = defaults["custom"]
    stacked = "stacking" in custom
    lines = _stack(traces) if stacked else [[(index, 0.0, value) for index, value in trace.points] for trace in traces]
    axis = _Axis(defaults, [top for line in lines for _, _, top in line if isfinite(top)], height)
    across = _Across(span, width)
    parts = [_frame(axis, across, defaults.get("unit", "")), _marks(span, across, height)]
    for trace, line in zip(traces, lines, strict=True):
        if custom["drawStyle"] == "bars":
            parts.append(_bars(trace, line, axis, across, step))
        else:
            parts.append(_line(trace, line, axis, across, step, custom["fillOpacity"] / 100 if not trace.dashed else 0))
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}">{"".join(parts)}</svg>'


def timeline(
    rows: Sequence[tuple[str, Sequence[tuple[float, str, str]]]], span: Span, step: int, width: int, height: int
) -> str:
    """Rows of states: name, then moment, text and color of each."""
    margin = 150
    across = _Across(span, width, margin)
    tall = (height - BOTTOM) / max(len(rows), 1)
    parts = [_times(across, height)]
    for index, (name, states) in enumerate(rows):
        y = index * tall
        parts.append(f'<text x="0" y="{y + tall / 2 + 4:.1f}" class="name">{escape(name[:22])}</text>')
        for first, last, text, color in _runs(states, step):
            x, wide = across(first), max(across(min(last + step, span.end)) - across(first), 1)
            parts.append(
                f'<rect x="{x:.1f}" y="{y + 2:.1f}" width="{wide:.1f}" height="{tall - 4:.1f}" fill="{color}">'
                f"<title>{escape(f'{name}: {text}')}</title></rect>"
            )
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}">{"".join(parts)}</svg>'


class _Axis:
    """Values to pixels, upwards."""

    def __init__(self, defaults: dict[str, Any], values: Sequence[float], height: int) -> None:
        self.height = height
        self.log = defaults["custom"].get("scaleDistribution", {}).get("type") == "log"
        steps = defaults.get("thresholds", {}).get("steps", [])
        has_thresholds = "thresholdsStyle" in defaults["custom"]
        self.lines = [(s["value"], COLORS[s["color"]]) for s in steps if has_thresholds and s["value"] is not None]
        points = [*values, *(value for value, _ in self.lines)] or [0.0]
        if self.log:
            self.low = floor(log10(max(min(points), SMALLEST)))
            self.high = max(ceil(log10(max(*points, SMALLEST))), self.low + 1)
        else:
            self.low = defaults.get("min", min(points))
            self.high = defaults.get("max", max(points))
            if self.high <= self.low:
                self.high = self.low + 1

    def __call__(self, value: float) -> float:
        place = log10(max(value, SMALLEST)) if self.log else value
        part = (place - self.low) / (self.high - self.low)
        return TOP + (self.height - TOP - BOTTOM) * (1 - min(max(part, 0), 1))

    @property
    def ticks(self) -> list[float]:
        """Round numbers, some four of them."""
        if self.log:
            return [10.0**power for power in range(int(self.low), int(self.high) + 1)]
        raw = (self.high - self.low) / 4
        size = 10.0 ** floor(log10(raw))
        size *= next(factor for factor in (1, 2, 5, 10) if factor * size >= raw)
        first = ceil(self.low / size - 1e-9)
        return [index * size for index in range(first, floor(self.high / size + 1e-9) + 1)]


class _Across:
    """Moments to pixels."""

    def __init__(self, span: Span, width: int, left: int = LEFT) -> None:
        self.span, self.left, self.right = span, left, width - RIGHT

    def __call__(self, at: float) -> float:
        part = (at - self.span.start) / (self.span.end - self.span.start)
        return self.left + (self.right - self.left) * min(max(part, 0), 1)


def _frame(axis: _Axis, across: _Across, unit: str) -> str:
    parts = [_times(across, axis.height)]
    for tick in axis.ticks:
        y = axis(tick)
        parts.append(f'<line x1="{across.left}" x2="{across.right}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{across.left - 6}" y="{y + 4:.1f}" class="tick">{escape(number(tick, unit))}</text>')
    for value, color in axis.lines:
        y = axis(value)
        parts.append(
            f'<line x1="{across.left}" x2="{across.right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{color}" stroke-dasharray="6 4"/>'
        )
    return "".join(parts)


def _times(across: _Across, height: int) -> str:
    """Labels below: hours of a day, or days."""
    span = across.span.end - across.span.start
    count = max(2, (across.right - across.left) // 90)
    size = next((item for item in (900, 3600, 7200, 21600, 43200, 86400, 172800) if span / item <= count), 604800)
    parts, at = [], ceil(across.span.start / size) * size
    while at < across.span.end:
        label = time.strftime("%H:%M" if span <= 86400 else "%d %b %H:%M", time.gmtime(at))
        parts.append(f'<text x="{across(at):.1f}" y="{height - 4}" class="time">{label}</text>')
        at += size
    return "".join(parts)


def _marks(span: Span, across: _Across, height: int) -> str:
    parts = []
    for first, last, text, color in span.marks:
        x, wide = across(first), max(across(last) - across(first), 1.5)
        parts.append(
            f'<rect x="{x:.1f}" y="{TOP}" width="{wide:.1f}" height="{height - TOP - BOTTOM}" fill="{color}" opacity="0.18">'
            f"<title>{escape(text)}</title></rect>"
            f'<path d="M{x:.1f} {height - BOTTOM}l-4 6h8z" fill="{color}"/>'
        )
    return "".join(parts)


def _stack(traces: Sequence[Trace]) -> list[list[tuple[float, float, float]]]:
    """Moment, bottom and top of each trace upon those before it."""
    below: dict[float, float] = {}
    result = []
    for trace in traces:
        line = []
        for index, value in trace.points:
            bottom = below.get(index, 0.0)
            below[index] = bottom + value
            line.append((index, bottom, below[index]))
        result.append(line)
    return result


def _line(
    trace: Trace, line: Sequence[tuple[float, float, float]], axis: _Axis, across: _Across, step: int, fill: float
) -> str:
    parts = []
    for piece in _pieces(line, step):
        top = [f"{across(index):.1f},{axis(high):.1f}" for index, _, high in piece]
        if len(piece) == 1:
            parts.append(
                f'<circle cx="{across(piece[0][0]):.1f}" cy="{axis(piece[0][2]):.1f}" r="2" fill="{trace.color}"/>'
            )
            continue
        if fill:
            bottom = [f"{across(index):.1f},{axis(low):.1f}" for index, low, _ in reversed(piece)]
            parts.append(f'<polygon points="{" ".join([*top, *bottom])}" fill="{trace.color}" opacity="{fill:.2f}"/>')
        dash = ' stroke-dasharray="8 8"' if trace.dashed else ""
        parts.append(f'<polyline points="{" ".join(top)}" stroke="{trace.color}"{dash} class="line"/>')
    return f"<g><title>{escape(trace.name)}</title>{''.join(parts)}</g>"


def _bars(trace: Trace, line: Sequence[tuple[float, float, float]], axis: _Axis, across: _Across, step: int) -> str:
    wide = max(across(across.span.start + step) - across.left - 0.5, 1)
    parts = [
        f'<rect x="{across(index) - wide / 2:.1f}" y="{axis(high):.1f}" width="{wide:.1f}" height="{axis(low) - axis(high):.1f}"/>'
        for index, low, high in line
        if high > low
    ]
    return f'<g fill="{trace.color}" opacity="0.75"><title>{escape(trace.name)}</title>{"".join(parts)}</g>'


def _pieces(line: Sequence[tuple[float, float, float]], step: int) -> list[list[tuple[float, float, float]]]:
    """Parts of a line between gaps and numbers that are none."""
    result: list[list[tuple[float, float, float]]] = []
    for point in line:
        if not isfinite(point[2]):
            continue
        if result and point[0] - result[-1][-1][0] <= 1.5 * step:
            result[-1].append(point)
        else:
            result.append([point])
    return result


def _runs(states: Sequence[tuple[float, str, str]], step: int) -> list[tuple[float, float, str, str]]:
    """Equal neighbors as one: from, to, text, color."""
    result: list[tuple[float, float, str, str]] = []
    for index, text, color in states:
        if result and result[-1][2] == text and index - result[-1][1] <= 1.5 * step:
            result[-1] = (result[-1][0], index, text, color)
        else:
            result.append((index, index, text, color))
    return result

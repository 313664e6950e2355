"""The curve of an experiment as an SVG. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from tunectl.canary.sequential_test import ExperimentResult


def render_svg(reading: ExperimentResult, width: int = 640, height: int = 180) -> str:
    """Return the difference with its confidence sequence over the identities, as an SVG; empty where there are fewer than two points."""
    points = reading.curve
    if len(points) < 2:
        return ""
    left, right, top, bottom = 46, width - 10, 10, height - 26
    most = max(point.units for point in points)
    reach = max(
        0.1, *(min(1.0, abs(value)) for point in points[len(points) // 4 :] for value in (point.low, point.high))
    )

    def x(units: float) -> float:
        return left + (right - left) * units / most

    def y(value: float) -> float:
        return (top + bottom) / 2 - (bottom - top) / 2 * max(-1.0, min(1.0, value / reach))

    band = _path([(x(p.units), y(p.high)) for p in points] + [(x(p.units), y(p.low)) for p in reversed(points)])
    line = _path([(x(p.units), y(p.difference)) for p in points])
    labels = "".join(
        f'<text x="{left - 6}" y="{y(value) + 4:.0f}" text-anchor="end" font-size="11" fill="currentColor">{value:+.2f}</text>'
        for value in (reach, 0.0, -reach)
    )
    mark = ""
    if reading.at is not None:
        mark = f'<line x1="{x(reading.at):.1f}" x2="{x(reading.at):.1f}" y1="{top}" y2="{bottom}" stroke="#c0392b" stroke-dasharray="4 3"/>'
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Difference of the outcomes, challenger minus champion">'
        f'<path d="{band} Z" fill="#2980b9" fill-opacity="0.18"/><path d="{line}" fill="none" stroke="#2980b9" stroke-width="2"/>'
        f'<line x1="{left}" x2="{right}" y1="{y(0):.1f}" y2="{y(0):.1f}" stroke="currentColor" stroke-opacity="0.5"/>{mark}{labels}'
        f'<text x="{right}" y="{height - 8}" text-anchor="end" font-size="11" fill="currentColor">{most} identities</text></svg>'
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M " + " L ".join(f"{x:.1f} {y:.1f}" for x, y in points)

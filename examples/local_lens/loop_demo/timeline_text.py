"""The timeline in a terminal: a row of blocks a lane, and a list of the marks."""

from __future__ import annotations

from typing import Any

from loop_demo.timeline import Category, Span, Timeline, format_duration

COLORS: dict[Category, str] = {"normal": "grey50", "changed": "yellow", "active": "cyan", "good": "green", "bad": "red"}
WIDTH = 76
NAMES = 10


def render_lane(timeline: Timeline, lane: str, width: int = WIDTH) -> list[tuple[str, Category | None]]:
    """Render the cells of one lane: characters and their categories; the last of several marks in one cell is drawn."""
    cells: list[tuple[str, Category | None]] = [(" ", None)] * width
    per = max(timeline.seconds, 1e-9) / width
    for item in (span for span in timeline.spans if span.lane == lane):
        first = min(width - 1, int(item.since / per))
        last = max(first, min(width - 1, int(item.until / per - 1e-9)))
        for index in range(first, last + 1):
            cells[index] = ("━" if index > first or item.since == 0 else "┣", item.category)
        cells[first : last + 1] = _write_label(item, cells[first : last + 1])
    for mark in (item for item in timeline.marks if item.lane == lane):
        index = max(0, min(width - 1, int(mark.at / per)))
        cells[index] = ("●" if mark.category in ("good", "bad") else "◆", mark.category)
    return cells


def _write_label(span: Span, cells: list[tuple[str, Category | None]]) -> list[tuple[str, Category | None]]:
    """Write the label into a bar if it fits."""
    if len(cells) < len(span.label) + 4:
        return cells
    text = f" {span.label} "
    return [cells[0], *((sign, span.category) for sign in text), *cells[len(text) + 1 :]]


def render_axis(timeline: Timeline, width: int = WIDTH) -> str:
    """Render the times below the lanes."""
    steps = 6
    line = [" "] * (width + 8)
    for step in range(steps + 1):
        text, start = format_duration(timeline.seconds * step / steps), round(width * step / steps)
        line[start : start + len(text)] = text
    return "".join(line).rstrip()


def print_timeline(timeline: Timeline, console: Any) -> None:
    """Print the whole timeline to a rich console."""
    from rich.text import Text

    def line(*pieces: tuple[str, str]) -> None:
        text = Text()
        for part, style in pieces:
            text.append(part, style=style or None)
        console.print(text, soft_wrap=True, highlight=False)

    console.print()
    when = f"{timeline.began:%Y-%m-%d %H:%M} UTC, {format_duration(timeline.seconds)}"
    line((f"  {timeline.title}, {when}", "bold"), (f"; {timeline.score}", "green" if timeline.passed else "red"))
    console.print()
    for lane in timeline.lanes:
        cells = [(sign, COLORS[category] if category else "") for sign, category in render_lane(timeline, lane)]
        line((f"  {lane:>{NAMES}} ", "dim"), *cells)
    line((f"  {'':>{NAMES}} {render_axis(timeline)}", "dim"))
    console.print()
    for mark in sorted(timeline.marks, key=lambda item: item.at):
        line(
            (f"  {format_duration(mark.at):>7}  ", "dim"),
            (f"{mark.lane:<9}", "dim"),
            (f"{mark.label:<12}", COLORS[mark.category]),
            (f"  {mark.note}", ""),
        )
    console.print()
    for number, label in timeline.figures:
        line((f"  {number:>12}  ", "bold"), (label, ""))
    console.print()
    for check in timeline.checks:
        line(
            ("  ✓ " if check.passed else "  ✗ ", "green" if check.passed else "red"),
            (check.statement, ""),
            (f"  {check.evidence}", "dim"),
        )

"""The timeline in a terminal: a row of blocks a lane, and every moment below."""

from __future__ import annotations

from typing import Any

from loop_demo.timeline import Span, Timeline, Tone, length

COLORS: dict[Tone, str] = {"calm": "grey50", "moved": "yellow", "work": "cyan", "good": "green", "bad": "red"}
WIDE = 76
NAMES = 10


def strip(timeline: Timeline, lane: str, wide: int = WIDE) -> list[tuple[str, Tone | None]]:
    """The cells of one lane: what is drawn, and its tone; of several moments in one cell the last one is seen."""
    cells: list[tuple[str, Tone | None]] = [(" ", None)] * wide
    per = max(timeline.seconds, 1e-9) / wide
    for item in (span for span in timeline.spans if span.lane == lane):
        first = min(wide - 1, int(item.since / per))
        last = max(first, min(wide - 1, int(item.until / per - 1e-9)))
        for index in range(first, last + 1):
            cells[index] = ("━" if index > first or item.since == 0 else "┣", item.tone)
        cells[first : last + 1] = _write_label(item, cells[first : last + 1])
    for mark in (item for item in timeline.marks if item.lane == lane):
        index = max(0, min(wide - 1, int(mark.at / per)))
        cells[index] = ("●" if mark.tone in ("good", "bad") else "◆", mark.tone)
    return cells


def _write_label(span: Span, cells: list[tuple[str, Tone | None]]) -> list[tuple[str, Tone | None]]:
    """The label inside a bar that has room for it."""
    if len(cells) < len(span.label) + 4:
        return cells
    text = f" {span.label} "
    return [cells[0], *((sign, span.tone) for sign in text), *cells[len(text) + 1 :]]


def axis(timeline: Timeline, wide: int = WIDE) -> str:
    """Times below the lanes."""
    steps = 6
    line = [" "] * (wide + 8)
    for step in range(steps + 1):
        text, place = length(timeline.seconds * step / steps), round(wide * step / steps)
        line[place : place + len(text)] = text
    return "".join(line).rstrip()


def show(timeline: Timeline, console: Any) -> None:
    """Print it all to a rich console."""
    from rich.text import Text

    def line(*pieces: tuple[str, str]) -> None:
        text = Text()
        for words, style in pieces:
            text.append(words, style=style or None)
        console.print(text, soft_wrap=True, highlight=False)

    console.print()
    when = f"{timeline.began:%Y-%m-%d %H:%M} UTC, {length(timeline.seconds)}"
    line((f"  {timeline.title}, {when}", "bold"), (f"; {timeline.score}", "green" if timeline.kept else "red"))
    console.print()
    for lane in timeline.lanes:
        cells = [(sign, COLORS[tone] if tone else "") for sign, tone in strip(timeline, lane)]
        line((f"  {lane:>{NAMES}} ", "dim"), *cells)
    line((f"  {'':>{NAMES}} {axis(timeline)}", "dim"))
    console.print()
    for mark in sorted(timeline.marks, key=lambda item: item.at):
        line(
            (f"  {length(mark.at):>7}  ", "dim"),
            (f"{mark.lane:<9}", "dim"),
            (f"{mark.label:<12}", COLORS[mark.tone]),
            (f"  {mark.note}", ""),
        )
    console.print()
    for number, what in timeline.figures:
        line((f"  {number:>12}  ", "bold"), (what, ""))
    console.print()
    for promise in timeline.promises:
        line(
            ("  ✓ " if promise.held else "  ✗ ", "green" if promise.held else "red"),
            (promise.words, ""),
            (f"  {promise.evidence}", "dim"),
        )

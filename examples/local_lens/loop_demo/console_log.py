"""Tells what happens, as it happens: chapters, lines with the time since the beginning, and what was promised."""

from __future__ import annotations

import time
from typing import Any

from loop_demo.timeline import Promise, length

WIDE = 92
MARKS = {
    "calm": ("·", "dim"),
    "moved": ("◆", "yellow"),
    "work": ("▸", "cyan"),
    "good": ("✓", "green"),
    "bad": ("✗", "red"),
}


class Narrator:
    """Writes to a rich console; every line ends with the time since the beginning."""

    def __init__(self, console: Any, chapters: int) -> None:
        self.console, self._chapters, self._number = console, chapters, 0
        self._began = time.monotonic()
        self.promises: list[Promise] = []

    @property
    def clock(self) -> str:
        """How long it has lasted."""
        return length(time.monotonic() - self._began)

    def chapter(self, title: str, words: str) -> None:
        """Begin the next chapter."""
        self._number += 1
        head = f" {self._number} of {self._chapters} "
        rule = "━" * max(2, WIDE - len(head) - len(title) - len(self.clock) - 4)
        self.console.print()
        self._print([(f"━━{head}", "bold cyan"), (title, "bold"), (f" {rule} ", "cyan"), (self.clock, "dim")])
        for line in words.splitlines():
            self._print([(f"  {line.strip()}", "italic")])

    def say(self, text: str, tone: str = "calm") -> None:
        """One line."""
        mark, style = MARKS[tone]
        first, *rest = text.splitlines() or [""]
        room = max(1, WIDE - len(first) - 4 - len(self.clock))
        self._print([(f"  {mark} ", style), (first, ""), (" " * room, ""), (self.clock, "dim")])
        for line in rest:
            self._print([(f"    {line}", "dim")])

    def promise(self, words: str, *, holds: bool, evidence: str) -> bool:
        """What was promised, and whether it was so."""
        self.promises.append(Promise(words, holds, evidence))
        self.say(f"{words}: {evidence}", "good" if holds else "bad")
        return holds

    def _print(self, pieces: list[tuple[str, str]]) -> None:
        from rich.text import Text

        line = Text()
        for text, style in pieces:
            line.append(text, style=style or None)
        self.console.print(line, soft_wrap=True, highlight=False)

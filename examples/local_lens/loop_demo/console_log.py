"""Prints the progress of the demo: chapters, lines with the elapsed time, and checks."""

from __future__ import annotations

import time
from typing import Any

from loop_demo.timeline import DemoCheck, format_duration

WIDTH = 92
MARKS = {
    "normal": ("·", "dim"),
    "changed": ("◆", "yellow"),
    "active": ("▸", "cyan"),
    "good": ("✓", "green"),
    "bad": ("✗", "red"),
}


class ConsoleLog:
    """Prints to a rich console; every line ends with the elapsed time."""

    def __init__(self, console: Any, chapters: int) -> None:
        self.console, self._chapters, self._number = console, chapters, 0
        self._began = time.monotonic()
        self.checks: list[DemoCheck] = []

    @property
    def clock(self) -> str:
        """The elapsed time."""
        return format_duration(time.monotonic() - self._began)

    def start_chapter(self, title: str, text: str) -> None:
        """Print the heading and the introduction of the next chapter."""
        self._number += 1
        head = f" {self._number} of {self._chapters} "
        rule = "━" * max(2, WIDTH - len(head) - len(title) - len(self.clock) - 4)
        self.console.print()
        self._print([(f"━━{head}", "bold cyan"), (title, "bold"), (f" {rule} ", "cyan"), (self.clock, "dim")])
        for line in text.splitlines():
            self._print([(f"  {line.strip()}", "italic")])

    def print_line(self, text: str, category: str = "normal") -> None:
        """Print a line; the lines after the first are details."""
        mark, style = MARKS[category]
        first, *rest = text.splitlines() or [""]
        room = max(1, WIDTH - len(first) - 4 - len(self.clock))
        self._print([(f"  {mark} ", style), (first, ""), (" " * room, ""), (self.clock, "dim")])
        for line in rest:
            self._print([(f"    {line}", "dim")])

    def record_check(self, statement: str, *, passed: bool, evidence: str) -> bool:
        """Record and print a check; return whether it passed."""
        self.checks.append(DemoCheck(statement, passed, evidence))
        self.print_line(f"{statement}: {evidence}", "good" if passed else "bad")
        return passed

    def _print(self, pieces: list[tuple[str, str]]) -> None:
        from rich.text import Text

        line = Text()
        for text, style in pieces:
            line.append(text, style=style or None)
        self.console.print(line, soft_wrap=True, highlight=False)

"""Tables, colors and progress bars with rich; plain or silent without a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tunectl.core import progress
from tunectl.core.control_codes import replace_control_codes
from tunectl.core.optional import import_optional


def console(*, stderr: bool = False) -> Any:
    """Return a rich console on stdout or stderr; wide enough for whole paths when the output is not a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 160
    return import_optional("rich.console", extra="all").Console(
        stderr=stderr, width=width, highlight=False, soft_wrap=False
    )


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, caption: str = "") -> None:
    """Print a table to stdout; numbers are right-aligned.

    ``rows`` hold values that ``str`` makes readable; control codes in them are made visible.
    """
    rich_table = import_optional("rich.table", extra="all")
    box = import_optional("rich.box", extra="all")
    grid = rich_table.Table(
        title=replace_control_codes(title) or None,
        caption=replace_control_codes(caption) or None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
    )
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        grid.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(escape(replace_control_codes(str(cell))) for cell in row))
    console().print(grid)


def escape(text: str) -> str:
    """Return ``text`` with rich's markup escaped."""
    escaped: str = import_optional("rich.markup", extra="all").escape(text)
    return escaped


def strip_control(text: str) -> str:
    """Return the text as one line without control codes, which could change the terminal."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)


def print_line(text: str, *, style: str | None = None) -> None:
    """Print one line of text to stdout; ``style`` is a rich style such as ``bold green``."""
    if style is None:  # without rich, which takes 3 MB of a service that prints its address
        sys.stdout.write(replace_control_codes(text) + "\n")
        sys.stdout.flush()
    else:
        console().print(replace_control_codes(text), style=style, markup=False, soft_wrap=True)


def print_marked(pieces: Sequence[tuple[str, bool]]) -> None:
    """Print pieces (text, highlighted) on one line: highlighted ones in bold green, or between « and » without colors."""
    out = console()
    text = import_optional("rich.text", extra="all").Text()
    before = False
    for piece, mark in [*pieces, ("", False)]:
        if mark != before and not out.color_system:
            text.append("«" if mark else "»")
        text.append(replace_control_codes(piece), style="bold green" if mark else "dim")
        before = mark
    out.print(text, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print ``value`` as JSON on stdout, for programs."""
    sys.stdout.write(replace_control_codes(json.dumps(value, indent=2, ensure_ascii=False, default=str)) + "\n")


class _Bar:
    def __init__(self, progress_bar: Any, task: Any) -> None:
        self._display = progress_bar
        self._task = task

    def advance(self, steps: float = 1, **figures: str) -> None:
        """Move the bar; ``figures`` replaces the text at its right."""
        note = {"figures": "  ".join(f"{name} {value}" for name, value in figures.items())} if figures else {}
        self._display.update(self._task, advance=steps, **note)


class TerminalBars:
    """Draws the progress bars of ``core.progress`` on stderr, with speed and remaining time."""

    def __init__(self) -> None:
        self._display: Any = None

    @contextmanager
    def bar(self, label: str, total: float | None) -> Iterator[_Bar]:
        """Yield a bar with ``total`` steps (None: unknown); bars opened inside one another share one display."""
        outermost = self._display is None
        if outermost:
            self._display = _display()
            self._display.start()
        task = self._display.add_task(label, total=total, figures="")
        try:
            yield _Bar(self._display, task)
        finally:
            self._display.update(task, visible=False)
            if outermost:
                self._display.stop()
                self._display = None


def _display() -> Any:
    rich = import_optional("rich.progress", extra="all")
    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(bar_width=24),
        rich.TaskProgressColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
        rich.TimeRemainingColumn(),
        rich.TextColumn("{task.fields[figures]}"),
    )
    return rich.Progress(*columns, console=console(stderr=True), transient=True)


def install_progress() -> None:
    """Draw progress bars when stderr is a terminal; otherwise log the progress of long work from time to time."""
    progress.set_renderer(TerminalBars() if sys.stderr.isatty() else progress.LogProgress())

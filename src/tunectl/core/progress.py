"""Progress of long work, independent of how it is shown.

Stages and backends report here; the command line installs a renderer: bars on a terminal (``backends/system/terminal.py``), else
``LogProgress`` in the log. With none installed nothing is shown. ``core/progress_journal.py`` writes it to a file, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeVar

from tunectl.core import logging_setup

T = TypeVar("T")
EVERY = 30.0
"""Seconds without a line after which ``LogProgress`` logs the progress."""


class Bar(Protocol):
    """Progress bar of one running piece of work."""

    def advance(self, steps: float = 1, **figures: str) -> None:
        """Add ``steps`` to the completed ones; ``figures`` are shown beside the bar, for example ``loss="1.203"``."""


class ProgressRenderer(Protocol):
    """Protocol of a renderer of progress bars: a terminal, the log, or a journal."""

    def bar(self, label: str, total: float | None) -> AbstractContextManager[Bar]:
        """Return a context manager that shows a bar of ``total`` steps (None: unknown) and yields it."""


class _Silent:
    def advance(self, steps: float = 1, **figures: str) -> None:
        """Draw nothing."""

    @contextmanager
    def bar(self, label: str, total: float | None) -> Iterator[Bar]:
        """Open nothing."""
        yield self


class LogProgress:
    """Logs the progress of long work, for logs of CI, containers and the retrain controller; short work logs nothing."""

    def __init__(self, every: float = EVERY, clock: Callable[[], float] = time.monotonic) -> None:
        """At most one line in ``every`` seconds of ``clock``, whichever bar moves."""
        self._every = every
        self._clock = clock
        self._open = 0
        self._logged_at = 0.0

    @contextmanager
    def bar(self, label: str, total: float | None) -> Iterator[_LogBar]:
        """Yield a bar of ``total`` steps (None: unknown) that logs its progress; bars inside it share its interval of logging."""
        now = self._clock()
        if not self._open:
            self._logged_at = now
        self._open += 1
        try:
            yield _LogBar(self, label, total, now)
        finally:
            self._open -= 1

    def due(self) -> float | None:
        """Return the current time (monotonic seconds) if the next line of the log is due; else None."""
        now = self._clock()
        if now - self._logged_at < self._every:
            return None
        self._logged_at = now
        return now


class _LogBar:
    def __init__(self, lines: LogProgress, label: str, total: float | None, began: float) -> None:
        self._lines, self._label, self._total, self._began = lines, label, total, began
        self._completed = 0.0

    def advance(self, steps: float = 1, **figures: str) -> None:
        """Count steps, and log where a line is due."""
        self._completed += steps
        now = self._lines.due()
        if now is None:
            return
        share = f" of {self._total:,.0f} ({self._completed / self._total:.0%})" if self._total else ""
        parts = [f"{self._label}: {self._completed:,.0f}{share} after {now - self._began:.0f} s"]
        parts += [f"{name} {value}" for name, value in figures.items()]
        logging_setup.get_logger(__name__).info(", ".join(parts))


_renderer: list[ProgressRenderer] = [_Silent()]


def set_renderer(renderer: ProgressRenderer) -> None:
    """Show all later bars with ``renderer``."""
    _renderer[0] = renderer


def get_renderer() -> ProgressRenderer:
    """Return the renderer that shows bars now."""
    return _renderer[0]


@contextmanager
def use_renderer(renderer: ProgressRenderer) -> Iterator[None]:
    """Show the bars of the block with ``renderer``, later ones as before."""
    before = _renderer[0]
    _renderer[0] = renderer
    try:
        yield
    finally:
        _renderer[0] = before


def bar(label: str, total: float | None = None) -> AbstractContextManager[Bar]:
    """Return a context manager that yields a bar called ``label`` of ``total`` steps (None: unknown); call its ``advance`` as steps complete."""
    return _renderer[0].bar(label, total)


def track(items: Iterable[T], label: str, total: float | None = None) -> Iterator[T]:
    """Yield ``items`` unchanged and move a bar by one for each; ``total`` is taken from ``len`` where it exists."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with bar(label, total) as progress_bar:
        for item in items:
            yield item
            progress_bar.advance()

"""Progress of long work, without knowing who draws it.

Stages and backends report here; the command line installs a renderer (``backends/terminal.py``). With none installed, or
when the output is not a terminal, nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeVar

T = TypeVar("T")


class Bar(Protocol):
    """One running piece of work."""

    def advance(self, steps: float = 1, **figures: str) -> None:
        """Move by ``steps``; ``figures`` are shown beside the bar, for example ``loss="1.203"``."""


class Renderer(Protocol):
    """Draws bars."""

    def bar(self, label: str, total: float | None) -> AbstractContextManager[Bar]:
        """Open a bar of ``total`` steps, or of unknown length where None."""


class _Silent:
    def advance(self, steps: float = 1, **figures: str) -> None:
        """Draw nothing."""

    @contextmanager
    def bar(self, label: str, total: float | None) -> Iterator[Bar]:
        """Open nothing."""
        yield self


_renderer: list[Renderer] = [_Silent()]


def install(renderer: Renderer) -> None:
    """Draw all later bars with ``renderer``."""
    _renderer[0] = renderer


def bar(label: str, total: float | None = None) -> AbstractContextManager[Bar]:
    """Open a bar of ``total`` steps: a context manager whose value moves it, ``shown.advance(32)``."""
    return _renderer[0].bar(label, total)


def track(items: Iterable[T], label: str, total: float | None = None) -> Iterator[T]:
    """Yield ``items`` unchanged and move a bar by one for each; ``total`` is taken from ``len`` where it exists."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with bar(label, total) as shown:
        for item in items:
            yield item
            shown.advance()

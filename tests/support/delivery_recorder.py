"""Whoever an engine's pipeline delivers to, for tests of engines: keeps what came, and waits for what is to come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from tunectl.generation.engine import TokenChunk

SECONDS = 60
"""How long anything is waited for."""


class Heard:
    """What a pipeline delivered, by number."""

    def __init__(self) -> None:
        self.pieces: dict[int, list[TokenChunk]] = {}
        self._came = threading.Condition()

    def __call__(self, batch: Sequence[tuple[int, TokenChunk]]) -> None:
        with self._came:
            for number, piece in batch:
                self.pieces.setdefault(number, []).append(piece)
            self._came.notify_all()

    def begun(self, number: int, pieces: int = 1) -> list[TokenChunk]:
        """What came for ``number``, once it is at least so many pieces."""
        return self._until(number, lambda found: len(found) >= pieces)

    def ended(self, number: int) -> list[TokenChunk]:
        """Everything that came for ``number``, once its end did."""
        return self._until(number, lambda found: bool(found) and found[-1].end is not None)

    def _until(self, number: int, enough: Callable[[list[TokenChunk]], bool]) -> list[TokenChunk]:
        with self._came:
            assert self._came.wait_for(lambda: enough(self.pieces.get(number, [])), SECONDS)
            return list(self.pieces[number])

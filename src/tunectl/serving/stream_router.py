"""From an engine's thread to the coroutines that wait for its answers."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence

from tunectl.generation.engine import EngineSession, GenerationRequest, TokenChunk

_NUMBERS = itertools.count(1)


class TokenStream:
    """Where the pieces of one request arrive: one request may want several answers."""

    def __init__(self, answers: int) -> None:
        self.open = answers
        """Answers whose last piece has not come."""
        self.started = False
        """Whether the engine knows of any."""
        self._pieces: list[tuple[int, TokenChunk]] = []
        self._came = asyncio.Event()

    def put(self, index: int, piece: TokenChunk) -> None:
        """Add a piece of answer ``index``; on the loop."""
        self._pieces.append((index, piece))
        self.open -= piece.end is not None
        self._came.set()

    async def take(self) -> list[tuple[int, TokenChunk]]:
        """Return everything that came since the last call; waits for one piece at least."""
        await self._came.wait()
        self._came.clear()
        result, self._pieces = self._pieces, []
        return result


class StreamRouter:
    """The answers of one pipeline."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lines: dict[int, tuple[TokenStream, int]] = {}
        self._heard = 0.0
        self._closed = False

    @property
    def busy(self) -> int:
        """Answers under way."""
        return len(self._lines)

    def idle_seconds(self, now: float) -> float:
        """Return the seconds for which answers are under way and none of them has got anything; ``now`` is monotonic."""
        return now - self._heard if self._lines else 0.0

    def deliver(self, batch: Sequence[tuple[int, TokenChunk]]) -> None:
        """Deliver events of the engine; an engine session calls this from its own thread."""
        try:
            self._loop.call_soon_threadsafe(self._hand, batch)
        except RuntimeError:  # the loop is closed: the server ends, and nobody waits any more
            return

    def start(self, pipeline: EngineSession, request: GenerationRequest, feed: TokenStream, index: int) -> int:
        """Begin an answer whose pieces go to ``feed``; returns its number."""
        number = next(_NUMBERS)
        if not self._lines:
            self._heard = time.monotonic()
        self._lines[number] = (feed, index)
        feed.started = True
        if self._closed:
            self.give_up()
        else:
            pipeline.start(number, request)
        return number

    def give_up(self) -> None:
        """End whatever is under way, and whatever begins from now on: the pipeline is closed, and may say nothing more."""
        self._closed = True
        lines, self._lines = self._lines, {}
        for feed, index in lines.values():
            feed.put(index, TokenChunk([], [], "cancelled"))

    def _hand(self, batch: Sequence[tuple[int, TokenChunk]]) -> None:
        self._heard = time.monotonic()
        for number, piece in batch:
            line = self._lines.get(number)
            if line is None:
                continue
            if piece.end is not None:
                del self._lines[number]
            line[0].put(line[1], piece)

"""Pass the output of an engine's thread to the coroutines that wait for it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence

from tunectl.generation.engine import EngineSession, GenerationRequest, TokenChunk

_NUMBERS = itertools.count(1)


class TokenStream:
    """Queue of the tokens of one request, of all its answers; filled and read on the event loop."""

    def __init__(self, answers: int) -> None:
        self.open = answers
        """Number of answers whose last piece has not come yet."""
        self.started = False
        """Whether the engine has any of them."""
        self._pieces: list[tuple[int, TokenChunk]] = []
        self._came = asyncio.Event()

    def put(self, index: int, piece: TokenChunk) -> None:
        """Add the tokens of one engine step of answer ``index``."""
        self._pieces.append((index, piece))
        self.open -= piece.end is not None
        self._came.set()

    async def take(self) -> list[tuple[int, TokenChunk]]:
        """Return (index of the answer, tokens of one step) for all steps since the last call; waits for at least one."""
        await self._came.wait()
        self._came.clear()
        result, self._pieces = self._pieces, []
        return result


class StreamRouter:
    """Passes the tokens of one engine session from its thread to the streams of the requests."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lines: dict[int, tuple[TokenStream, int]] = {}
        self._last_line_at = 0.0
        self._closed = False

    @property
    def busy(self) -> int:
        """Number of running answers."""
        return len(self._lines)

    def idle_seconds(self, now: float) -> float:
        """Return the seconds for which no running answer has got a token; ``now`` is in monotonic seconds."""
        return now - self._last_line_at if self._lines else 0.0

    def deliver(self, batch: Sequence[tuple[int, TokenChunk]]) -> None:
        """Pass (number of the answer, tokens) to the event loop; the engine session calls this from its own thread."""
        try:
            self._loop.call_soon_threadsafe(self._hand, batch)
        except RuntimeError:  # the loop is closed: the server is ending, and no request waits
            return

    def start(
        self, engine_session: EngineSession, request: GenerationRequest, token_stream: TokenStream, index: int
    ) -> int:
        """Start answer ``index`` of a request, whose tokens go to ``token_stream``; return its number in the session."""
        number = next(_NUMBERS)
        if not self._lines:
            self._last_line_at = time.monotonic()
        self._lines[number] = (token_stream, index)
        token_stream.started = True
        if self._closed:
            self.give_up()
        else:
            engine_session.start(number, request)
        return number

    def give_up(self) -> None:
        """End all running answers as cancelled, and all that are started later: the session is closed."""
        self._closed = True
        lines, self._lines = self._lines, {}
        for token_stream, index in lines.values():
            token_stream.put(index, TokenChunk([], [], "cancelled"))

    def _hand(self, batch: Sequence[tuple[int, TokenChunk]]) -> None:
        self._last_line_at = time.monotonic()
        for number, piece in batch:
            line = self._lines.get(number)
            if line is None:
                continue
            if piece.end is not None:
                del self._lines[number]
            line[0].put(line[1], piece)

"""Convert the tokens of an answer to text: whole characters only, and cut before a stop text."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from tunectl.generation.prompt import TokenizerLike


class IncrementalDetokenizer:
    """Converts the tokens of one answer to text as they arrive, up to a stop text.

    A character whose bytes are split across tokens waits until it is whole; a text that may be the start of a stop waits
    until that is clear. ``done`` is set once a stop text has occurred; nothing is added afterwards. With ``continues`` the answer goes on
    in the prompt's text, so a space at its start stays.
    """

    def __init__(self, tokenizer: TokenizerLike, stops: Sequence[str] = (), *, continues: bool = False) -> None:
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._longest = max(map(len, self._stops), default=1) - 1
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._fresh = tokenizer.strips and not continues
        self._buffer = ""
        self.done = False

    def push(self, ids: Sequence[int], *, last: bool = False) -> str:
        """Add the tokens ``ids``; return the new text that no later token can change. ``last``: no tokens follow, so return the rest."""
        if self.done:
            return ""
        text = self._decoder.decode(b"".join(map(self._tokenizer.bytes_of, ids)), last)
        if self._fresh and text:
            self._fresh, text = False, text.removeprefix(" ")
        if not self._stops:
            return text
        self._buffer += text
        return self._release(last=last)

    def _release(self, *, last: bool) -> str:
        cut = min((position for stop in self._stops if (position := self._buffer.find(stop)) >= 0), default=-1)
        if cut >= 0:
            self.done, released, self._buffer = True, self._buffer[:cut], ""
            return released
        end = len(self._buffer) - (0 if last else self._tail())
        released, self._buffer = self._buffer[:end], self._buffer[end:]
        return released

    def _tail(self) -> int:
        """Return how many letters at the end may be the beginning of a stop text."""
        for size in range(min(self._longest, len(self._buffer)), 0, -1):
            end = self._buffer[-size:]
            if any(stop.startswith(end) for stop in self._stops):
                return size
        return 0

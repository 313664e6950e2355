"""Depth of JSON, found before it is parsed."""

from __future__ import annotations

from itertools import accumulate
from typing import Final

_STEPS: Final = {**dict.fromkeys(b"[{", 1), **dict.fromkeys(b"]}", -1)}
_NO_BRACKETS: Final = bytes(set(range(256)) - _STEPS.keys())


def exceeds_depth(text: bytes, depth: int) -> bool:
    """Return whether the JSON ``text`` is nested deeper than ``depth``, in time linear in its length.

    For invalid JSON the result holds only up to its first error, where a parser stops.
    """
    if text.count(b"[") + text.count(b"{") <= depth:
        return False
    bare = text.replace(b"\\\\", b"").replace(b'\\"', b"")  # an even number of strokes escapes no quote
    outside = b"".join(bare.split(b'"')[::2])
    marks = outside.translate(None, delete=_NO_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, marks)), default=0) > depth

"""Wrapper of ftfy: repair of text that was decoded with the wrong encoding."""

from __future__ import annotations

from collections.abc import Callable

from tunectl.core.optional import import_optional


def make_fixer() -> Callable[[str], str]:
    """Return a function that repairs mojibake line by line, and leaves correct text unchanged.

    ASCII cannot be mojibake, so such lines are skipped. Each line is repaired by itself, because a file may have been decoded wrongly in part.
    """
    fix = import_optional("ftfy", extra="data").fix_encoding

    def mend(text: str) -> str:
        if text.isascii():
            return text
        return "\n".join(line if line.isascii() else fix(line) for line in text.split("\n"))

    return mend

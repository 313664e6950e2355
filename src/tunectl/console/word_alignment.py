"""The longest common subsequence of two texts' words, with one bit a word (Hyyrö 2004): no text of a stranger makes it slow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

MAX_WORDS: Final = 8_000
"""Words of each text that are compared; the time grows with the product of both, divided by the bits of a machine word."""


def align_words(left: Sequence[str], right: Sequence[str]) -> list[tuple[int, int]]:
    """Return (index in ``left``, index in ``right``) of each word of the longest sequence that both have in this order."""
    indices: dict[str, int] = {}
    for index, word in enumerate(left[:MAX_WORDS]):
        indices[word] = indices.get(word, 0) | 1 << index
    every = (1 << min(len(left), MAX_WORDS)) - 1
    rows = [every]  # a bit is 0 where the word of ``left`` makes the common sequence longer
    for word in right[:MAX_WORDS]:
        shared = rows[-1] & indices.get(word, 0)
        rows.append(((rows[-1] + shared) | (rows[-1] - shared)) & every)
    pairs = []
    row, column = len(rows) - 1, min(len(left), MAX_WORDS)
    while row and column:
        bit = 1 << (column - 1)
        if rows[row] & bit:
            column -= 1
        elif rows[row - 1] & bit:
            row, column = row - 1, column - 1
            pairs.append((column, row))
        else:
            row -= 1
    return pairs[::-1]

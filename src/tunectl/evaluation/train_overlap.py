"""Measure how much of a text occurred in training: the share of its 4-grams, and the answer of the nearest training input."""

from __future__ import annotations

import re
from collections.abc import Iterable

_WORD = re.compile(r"\w+|[^\w\s]")
ORDER = 4
"""Consecutive words that count as copied."""

Grams = frozenset[tuple[str, ...]]


def ngrams(text: str) -> list[tuple[str, ...]]:
    """Return the 4-grams (four tokens each) of a text's words and punctuation marks, case folded, in order."""
    words = _WORD.findall(text.casefold())
    return [tuple(words[start : start + ORDER]) for start in range(len(words) - ORDER + 1)]


def train_ngrams(texts: Iterable[str]) -> Grams:
    """Return the set of all 4-grams of the training answers."""
    return frozenset(gram for text in texts for gram in ngrams(text))


def share(text: str, grams: Grams) -> tuple[int, int]:
    """Return (number of 4-grams of ``text`` that are in ``grams``, number of 4-grams of ``text``)."""
    own = ngrams(text)
    return sum(gram in grams for gram in own), len(own)

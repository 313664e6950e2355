"""Measure how much of a text repeats: the metrics of Gopher (Rae et al. 2021, arXiv 2112.11446, table A1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def duplicate_line_fraction(text: str) -> float:
    """Return the share of the non-empty lines that are copies of an earlier one, 0 to 1."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return 1.0 - len(set(lines)) / len(lines) if lines else 0.0


def top_ngram_fraction(words: Sequence[str], size: int) -> float:
    """Return the share of the letters of ``words`` inside the most frequent run of ``size`` words; 0 when no run repeats.

    Where several runs are equally frequent, the longest counts.
    """
    runs = Counter(zip(*(words[start:] for start in range(size)), strict=False))
    if not runs:
        return 0.0
    most = max(runs.values())
    if most < 2:
        return 0.0
    longest = max(sum(map(len, run)) for run, count in runs.items() if count == most)
    return min(1.0, longest * most / _letters(words))


def duplicate_ngram_fraction(words: Sequence[str], size: int) -> float:
    """Return the share of the letters of ``words`` inside runs of ``size`` words that occurred before; each letter counts once."""
    seen: set[tuple[str, ...]] = set()
    covered = end = 0
    for start in range(len(words) - size + 1):
        run = tuple(words[start : start + size])
        if run in seen:
            covered += sum(map(len, words[max(start, end) : start + size]))
            end = start + size
        seen.add(run)
    return covered / _letters(words) if words else 0.0


def _letters(words: Sequence[str]) -> int:
    return sum(map(len, words)) or 1

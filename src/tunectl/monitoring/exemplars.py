"""Examples of drift: the inferences that differ most, and the words that became more or less frequent."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from math import sqrt
from typing import TYPE_CHECKING, Any

from tunectl.artifacts.records import SegmentShift
from tunectl.monitoring.signals import MonitoredInference

if TYPE_CHECKING:
    from numpy.typing import NDArray

RIDGE = 0.1
"""Ridge of the direction between window and reference, as a share of the largest variance."""
MIN_STANDARD_ERRORS = 4.0
"""Standard errors between two shares from which a slice is shown: many words are tested."""
_WORD = re.compile(r"[^\W\d_]{3,}")


def most_shifted(window: NDArray[Any], reference: NDArray[Any], count: int) -> list[int]:
    """Return the indices of the rows of ``window`` (rows, d) that differ most from ``reference`` (rows, d), most different first.

    They are ordered along the direction that separates the two best (Fisher's discriminant, with a ridge).
    """
    import numpy as np

    if not len(window) or not len(reference):
        return []
    pool = np.concatenate([window, reference]).astype(np.float64)
    covariance = np.cov(pool.T, bias=True).reshape(pool.shape[1], pool.shape[1])
    largest = float(np.linalg.eigvalsh(covariance)[-1])
    if largest <= 0:
        return []
    difference = window.mean(axis=0) - reference.mean(axis=0)
    direction = np.linalg.solve(covariance + RIDGE * largest * np.eye(len(covariance)), difference)
    return [int(index) for index in np.argsort(-(window @ direction), kind="stable")[:count]]


def word_shifts(
    window: Sequence[MonitoredInference], reference: Sequence[MonitoredInference], count: int, *, limit: int = 3
) -> list[SegmentShift]:
    """Return words that occur in a larger (or smaller) share of the window's prompts than of the reference's, largest change first.

    A word is returned where the two shares differ by ``MIN_STANDARD_ERRORS`` standard errors or more; of words that occur in nearly the same
    prompts, only the one that changed most.
    """
    window_words, reference_words = (
        [_split_words(row.prompt) for row in window],
        [_split_words(row.prompt) for row in reference],
    )
    if not window_words or not reference_words:
        return []
    now, then = (
        Counter(word for window_word in window_words for word in window_word),
        Counter(word for reference_word in reference_words for word in reference_word),
    )
    result: list[tuple[float, str, float, float]] = []
    for word in now.keys() | then.keys():
        new, old = now[word] / len(window_words), then[word] / len(reference_words)
        both = (now[word] + then[word]) / (len(window_words) + len(reference_words))
        error = sqrt(both * (1 - both) * (1 / len(window_words) + 1 / len(reference_words)))
        if error > 0 and abs(new - old) >= MIN_STANDARD_ERRORS * error:
            result.append((abs(new - old), word, new, old))
    shifts: list[SegmentShift] = []
    marked: list[frozenset[int]] = []
    for _, word, new, old in sorted(result, key=lambda each: (-each[0], each[1])):
        rows = frozenset(index for index, window_word in enumerate(window_words) if word in window_word)
        if any(len(rows & other) > 0.8 * len(rows | other) for other in marked if rows):
            continue
        marked.append(rows)
        names = [window[row].id for row in sorted(rows)[:limit]]
        shifts.append(SegmentShift(f"word:{word}", round(new, 4), round(old, 4), names))
        if len(shifts) == count:
            break
    return shifts


def _split_words(text: str | None) -> frozenset[str]:
    return frozenset(_WORD.findall((text or "").casefold()))

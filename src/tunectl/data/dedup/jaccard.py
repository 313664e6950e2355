"""Exact Jaccard similarity of many pairs of texts, by sorted arrays of hashed shingles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunectl.data.dedup import shingles
from tunectl.data.dedup.shingles import Unit

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tunectl.data.dedup.shingles import Hashes, Indexes

    Links = tuple[Indexes, Indexes]
    Floats = npt.NDArray[np.float64]
    Flags = npt.NDArray[np.bool_]

PART_CHARACTERS = 2_000_000  # of the texts compared in one go: bounds memory at about 100 MB a thread
PART_PAIRS = 2**14  # a text's or pair's number must fit in the 16 bits above its hashes
_KEPT_BITS = 48


class JaccardMatrix:
    """Computes Jaccard similarities of pairs of items; an item has one text, or two (input and answer), given as lists in ``sides``.

    Hashes are cut to 48 bits, so two different shingles of a pair of texts collide with a chance of 10^-14 each.
    """

    def __init__(self, sides: Sequence[Sequence[str]], unit: Unit, size: int) -> None:
        self.sides = sides
        self.unit = unit
        self.size = size
        self._sizes: Indexes | None = None

    def parts(self, left: Indexes, right: Indexes, indexes: Indexes) -> list[Links]:
        """Return the pairs (left, right) in portions whose texts fit in memory; both are positions in ``indexes`` (item numbers)."""
        import numpy as np

        if not len(left):
            return []
        sizes = self._text_sizes()
        total = np.cumsum(sizes[indexes[left]] + sizes[indexes[right]])
        cut = np.maximum(total // PART_CHARACTERS, np.arange(len(left)) // PART_PAIRS)
        bounds = np.flatnonzero(np.diff(cut)) + 1
        return list(zip(np.split(left, bounds), np.split(right, bounds), strict=True))

    def _text_sizes(self) -> Indexes:
        """Return (items,) characters of the longest side."""
        import numpy as np

        if self._sizes is None:
            counts = [np.fromiter(shingles.text_lengths(side), np.int64, len(side)) for side in self.sides]
            self._sizes = np.max(counts, axis=0) if len(counts) > 1 else counts[0]
        return self._sizes

    def at_least(self, left: Indexes, right: Indexes, threshold: float) -> Flags:
        """Return for each pair (left, right) of items whether all their texts reach the similarity ``threshold`` (0 to 1); shape (pairs,)."""
        import numpy as np

        alive = np.arange(len(left))
        for side in reversed(self.sides):
            near = self.similarity(side, left[alive], right[alive]) >= threshold
            alive = alive[near]
        alike = np.zeros(len(left), np.bool_)
        alike[alive] = True
        return alike

    def similarity(self, texts: Sequence[str], left: Indexes, right: Indexes) -> Floats:
        """Return the Jaccard similarity of each pair (left, right) of ``texts``: shared shingles divided by all; shape (pairs,).

        Two texts without words have the similarity 1.
        """
        import numpy as np

        used, where = np.unique(np.concatenate((left, right)), return_inverse=True)
        values, offsets = self._sets([texts[index] for index in used.tolist()])
        sizes = np.diff(offsets)
        pairs = np.tile(np.arange(len(left), dtype=np.uint64), 2) << np.uint64(_KEPT_BITS)
        positions = _ranges(offsets[where], sizes[where])
        keys = values[positions] | np.repeat(pairs, sizes[where])
        keys.sort()
        twice = keys[1:][keys[1:] == keys[:-1]] >> np.uint64(_KEPT_BITS)
        shared = np.bincount(twice.astype(np.int64), minlength=len(left)).astype(np.float64)
        either = sizes[where[: len(left)]] + sizes[where[len(left) :]] - shared
        return np.divide(shared, either, out=np.ones(len(left)), where=either > 0)

    def _sets(self, texts: list[str]) -> tuple[Hashes, Indexes]:
        """Return sorted distinct shingles of each text, and (texts + 1,) where each begins."""
        import numpy as np

        result = shingles.shingle(texts, unit=self.unit, size=self.size)
        owner = np.repeat(np.arange(len(texts), dtype=np.uint64), np.diff(result.offsets))
        keys = np.unique((result.values >> np.uint64(64 - _KEPT_BITS)) | (owner << np.uint64(_KEPT_BITS)))
        marks = np.arange(len(texts) + 1, dtype=np.uint64) << np.uint64(_KEPT_BITS)
        offsets = np.searchsorted(keys, marks).astype(np.int64)
        return keys & np.uint64(2**_KEPT_BITS - 1), offsets


def _ranges(starts: Indexes, lengths: Indexes) -> Indexes:
    """Concatenate the integer ranges from each start, of each length."""
    import numpy as np

    before = np.cumsum(lengths) - lengths
    indexes: Indexes = np.arange(int(lengths.sum()), dtype=np.int64) + np.repeat(starts - before, lengths)
    return indexes

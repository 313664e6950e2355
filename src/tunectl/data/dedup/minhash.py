"""Clusters of near-equal texts: MinHash with banding proposes pairs, exact Jaccard of their shingles decides.

MinHash is Broder 1997; banding is Indyk and Motwani 1998, as in Leskovec, Rajaraman and Ullman, chapter 3. Buckets are runs
of equal keys in sorted arrays, not dictionaries. Items are first sorted by their content, so the clusters do not
depend on the input order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tunectl.data.dedup import jaccard, shingles
from tunectl.data.dedup.band_keys import BandKeys
from tunectl.data.dedup.shingles import Unit

if TYPE_CHECKING:
    from tunectl.data.dedup.shingles import Hashes, Indexes

    Links = tuple[Indexes, Indexes]

T = TypeVar("T")
R = TypeVar("R")
WHOLE_BUCKET = (
    32  # a bucket up to this size is compared pair by pair; in a larger one each item with the first and 32 neighbors
)
BUCKET_PART = 2**20  # rows of buckets whose pairs are listed at once: at most 33 pairs a row, half a GB


@dataclass(frozen=True, slots=True)
class MinHashParams:
    """Parameters of the search for near duplicates: threshold, shingles and banding."""

    threshold: float
    """Jaccard similarity, above 0 to 1, from which two texts are near duplicates."""
    unit: Unit
    size: int
    """Units per shingle."""
    bands: int
    rows: int
    """MinHash values per band."""
    seed: int = 0
    threads: int = 2


def label_clusters(sides: Sequence[Sequence[str]], plan: MinHashParams, scratch: Path | None = None) -> Indexes:
    """Return for each item the smallest index in its cluster, shape (items,).

    ``sides`` holds one or more equally long lists of texts; two items are near duplicates when each side has at least the similarity
    ``plan.threshold``. Candidates come from the last side. The relation is made transitive: a cluster is a
    connected component. Items whose last side has no letter or digit are in no cluster. With ``scratch`` the band keys
    are in an unnamed file there, and one band at a time is in memory.

    Raises  InfrastructureError where the disk of ``scratch`` has no room for the keys.
    """
    import numpy as np

    with BandKeys(plan.bands, len(sides[-1]), scratch) as keys:
        prints = _sign(sides, keys, plan)
        worded = np.flatnonzero(keys.read(0) != 0)
        _, first, twin = np.unique(prints[worded], return_index=True, return_inverse=True)
        del prints
        group = _link(sides, keys, worded[first], plan)
    labels = np.arange(len(sides[-1]), dtype=np.int64)
    smallest = np.full(len(first), len(labels), dtype=np.int64)
    np.minimum.at(smallest, group[twin], worded)
    labels[worded] = smallest[group[twin]]
    return labels


def _sign(sides: Sequence[Sequence[str]], keys: BandKeys, plan: MinHashParams) -> Hashes:
    """Fill in band keys of the last side, 0 where it has no words; return fingerprints of all sides (items,)."""
    import numpy as np

    texts = sides[-1]
    prints = np.zeros(len(texts), np.uint64)
    factors = draw_factors(plan)

    def fill(bounds: tuple[int, int]) -> None:
        part = slice(*bounds)
        prints[part], band_keys = sign([side[part] for side in sides], factors, plan)
        keys.write(part.start, band_keys)

    map_threads(fill, list(shingles.char_batches(texts)), plan.threads)
    return prints


def draw_factors(plan: MinHashParams) -> Hashes:
    """Return random odd factors, drawn with ``plan.seed``, of the hash permutations; shape (bands, rows)."""
    import numpy as np

    draw = np.random.default_rng(plan.seed)
    return draw.integers(0, 2**63, (plan.bands, plan.rows), dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def sign(sides: Sequence[Sequence[str]], factors: Hashes, plan: MinHashParams) -> tuple[Hashes, Hashes]:
    """Return (fingerprint of each item's texts, shape (items,); MinHash keys of its last text, shape (bands, items), 0 without words)."""
    result = shingles.shingle(sides[-1], unit=plan.unit, size=plan.size)
    prints = result.prints
    for other in sides[:-1]:
        prints = shingles.combine(prints, shingles.shingle(other, unit="word", size=1).prints)
    return prints, _band_keys(result, factors)


def _band_keys(shingle_sets: shingles.Shingles, factors: Hashes) -> Hashes:
    """Return (bands, texts): the minimum of each permutation over a text's shingles, the rows of a band hashed together.

    A permutation is multiplication by an odd factor modulo 2^64: the shingles are mixed well already.
    """
    import numpy as np

    filled = np.flatnonzero(np.diff(shingle_sets.offsets))
    starts = shingle_sets.offsets[filled]
    keys = np.zeros((len(factors), len(shingle_sets.offsets) - 1), np.uint64)
    permuted = np.empty_like(shingle_sets.values)
    for band, rows in enumerate(factors):
        key = np.zeros(len(filled), np.uint64)
        for factor in rows:
            np.multiply(shingle_sets.values, factor, out=permuted)
            if len(starts):
                key = shingles.combine(key, np.minimum.reduceat(permuted, starts))
        keys[band, filled] = np.maximum(key, 1)  # 0 says "no words"
    return keys


def _link(sides: Sequence[Sequence[str]], keys: BandKeys, indexes: Indexes, plan: MinHashParams) -> Indexes:
    """Return the component of each item of ``indexes``; pairs that are in one component already are not compared again."""
    graph = SimilarityGraph(len(indexes))
    measure = jaccard.JaccardMatrix(sides, plan.unit, plan.size)

    def compare(part: jaccard.Links) -> jaccard.Links:
        left, right = part
        alike = measure.at_least(indexes[left], indexes[right], plan.threshold)
        return left[alike], right[alike]

    for band in range(plan.bands):
        for left, right in find_candidates(keys.read(band)[indexes], graph.group):
            for links in map_threads(compare, measure.parts(left, right, indexes), plan.threads):
                graph.add(*links)
        graph.merge()
    return graph.group


def find_candidates(key: Hashes, group: Indexes) -> Iterator[Links]:
    """Yield arrays (left < right) of item pairs with equal ``key`` that are not in one ``group`` yet, in portions that bound memory."""
    import numpy as np

    order = np.argsort(key, kind="stable")
    ranked = key[order]
    same = np.flatnonzero(ranked[1:] == ranked[:-1])
    begins = np.flatnonzero(np.diff(ranked, prepend=ranked[:1] - np.uint64(1)))
    for start in range(0, len(same), BUCKET_PART):
        upper = same[start : start + BUCKET_PART]
        head = begins[np.searchsorted(begins, upper, side="right") - 1]
        lefts, rights = [order[head]], [order[upper + 1]]
        for step in range(1, WHOLE_BUCKET + 1):
            upper = upper[upper + step < len(ranked)]
            upper = upper[ranked[upper + step] == ranked[upper]]
            if not len(upper):
                break
            lefts.append(order[upper])
            rights.append(order[upper + step])
        left, right = np.concatenate(lefts), np.concatenate(rights)
        is_separate = group[left] != group[right]
        left, right = left[is_separate], right[is_separate]
        pairs = np.unique(np.minimum(left, right) * len(key) + np.maximum(left, right))
        yield pairs // len(key), pairs % len(key)


class SimilarityGraph:
    """Pairs of similar items, and the connected component of each item in ``group``."""

    def __init__(self, count: int) -> None:
        import numpy as np

        self.group: Indexes = np.arange(count, dtype=np.int64)
        """(items,) number of each item's component."""
        self._links: list[Links] = []
        self._merged = 0

    def add(self, left: Indexes, right: Indexes) -> None:
        """Add pairs (left, right) of item indexes; ``merge`` then updates ``group``."""
        if len(left):
            self._links.append((left, right))

    def merge(self) -> None:
        """Update ``group`` by the pairs that were added since the last call.

        More pairs than items are replaced by one pair from each item to the first of its component, which bounds memory.
        """
        import numpy as np

        if len(self._links) == self._merged:
            return
        left, right = (np.concatenate(ends) for ends in zip(*self._links, strict=True))
        self.group = find_components(len(self.group), left, right)
        if len(left) > len(self.group):
            _, first = np.unique(self.group, return_index=True)
            left = np.flatnonzero(first[self.group] != np.arange(len(self.group)))
            right = first[self.group[left]]
        self._links = [(left, right)]
        self._merged = 1


def find_components(count: int, left: Indexes, right: Indexes) -> Indexes:
    """Return for each of ``count`` nodes the number of its connected component, shape (count,); (left, right) are the edges."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(left), np.bool_), (left, right)), shape=(count, count))
    labels: Indexes = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels


def map_threads(work: Callable[[T], R], items: Sequence[T], threads: int) -> list[R]:
    """Return ``work(item)`` for each item, in order, computed in threads; numpy releases the interpreter lock (GIL)."""
    with ThreadPoolExecutor(max_workers=threads) as pool:
        return list(pool.map(work, items))

"""Clusters of near-equal texts: MinHash with banding proposes pairs, exact Jaccard of their shingles decides.

MinHash is Broder 1997; banding is Indyk and Motwani 1998, as in Leskovec, Rajaraman and Ullman, chapter 3. Buckets are runs
of equal keys in sorted arrays, not dictionaries. Items are first put in the order of their content, so the clusters do not
depend on the order in which they came.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tunectl.data.dedup import jaccard, shingles
from tunectl.data.dedup.shingles import Unit

if TYPE_CHECKING:
    from tunectl.data.dedup.shingles import Hashes, Indexes

    Links = tuple[Indexes, Indexes]

T = TypeVar("T")
R = TypeVar("R")
WHOLE_BUCKET = (
    32  # a bucket up to this size is compared pair by pair; in a larger one each item with the first and 32 neighbors
)


@dataclass(frozen=True, slots=True)
class MinHashParams:
    """How near duplicates are found."""

    threshold: float
    """Jaccard similarity, above 0 to 1, from which two texts belong together."""
    unit: Unit
    size: int
    """Units a shingle."""
    bands: int
    rows: int
    """MinHash values a band."""
    seed: int = 0
    threads: int = 2


def candidate_probability(similarity: float, *, bands: int, rows: int) -> float:
    """Return the chance that a pair of this Jaccard similarity becomes a candidate, 0 to 1."""
    return float(1.0 - (1.0 - similarity**rows) ** bands)


def clusters(sides: Sequence[Sequence[str]], plan: MinHashParams) -> list[int]:
    """Label each item with the smallest index in its cluster.

    ``sides`` holds one or more equally long lists of texts; two items belong together when each side is at least
    ``plan.threshold`` alike. Candidates come from the last side. Belonging together is transitive: a cluster is a
    connected component. Items whose last side has no letter or digit belong to nobody.
    """
    import numpy as np

    keys, prints = _sign(sides, plan)
    worded = np.flatnonzero(keys[0] != 0)
    _, first, twin = np.unique(prints[worded], return_index=True, return_inverse=True)
    chosen = worded[first]
    group = _link(sides, keys, chosen, plan)
    labels = np.arange(len(prints), dtype=np.int64)
    smallest = np.full(len(chosen), len(prints), dtype=np.int64)
    np.minimum.at(smallest, group[twin], worded)
    labels[worded] = smallest[group[twin]]
    clusters_of_text: list[int] = labels.tolist()
    return clusters_of_text


def _sign(sides: Sequence[Sequence[str]], plan: MinHashParams) -> tuple[Hashes, Hashes]:
    """Return band keys of the last side (bands, items), 0 where it has no words; fingerprints of all sides (items,)."""
    import numpy as np

    texts = sides[-1]
    keys = np.zeros((plan.bands, len(texts)), np.uint64)
    prints = np.zeros(len(texts), np.uint64)
    draw = np.random.default_rng(plan.seed)
    factors = draw.integers(0, 2**63, (plan.bands, plan.rows), dtype=np.uint64) * np.uint64(2) + np.uint64(1)

    def fill(bounds: tuple[int, int]) -> None:
        part = slice(*bounds)
        result = shingles.shingle(texts[part], unit=plan.unit, size=plan.size)
        prints[part] = result.prints
        for other in sides[:-1]:
            prints[part] = shingles.combine(prints[part], shingles.shingle(other[part], unit="word", size=1).prints)
        keys[:, part] = _band_keys(result, factors)

    map_threads(fill, list(shingles.char_batches(texts)), plan.threads)
    return keys, prints


def _band_keys(shingle_sets: shingles.Shingles, factors: Hashes) -> Hashes:
    """Return (bands, texts): the least of each permutation over a text's shingles, the rows of a band hashed together.

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


def _link(sides: Sequence[Sequence[str]], keys: Hashes, chosen: Indexes, plan: MinHashParams) -> Indexes:
    """Return component of each chosen item; pairs that are in one component already are not compared again."""
    import numpy as np

    group = np.arange(len(chosen), dtype=np.int64)
    lefts, rights = [group[:0]], [group[:0]]
    measure = jaccard.JaccardMatrix(sides, plan.unit, plan.size)

    def compare(part: jaccard.Links) -> tuple[Indexes, Indexes]:
        left, right = part
        alike = measure.at_least(chosen[left], chosen[right], plan.threshold)
        return left[alike], right[alike]

    for band in range(plan.bands):
        left, right = _candidates(keys[band, chosen], group)
        parts = map_threads(compare, measure.parts(left, right, chosen), plan.threads)
        lefts += [part[0] for part in parts]
        rights += [part[1] for part in parts]
        if any(len(part[0]) for part in parts):
            group = _components(len(chosen), np.concatenate(lefts), np.concatenate(rights))
    return group


def _candidates(key: Hashes, group: Indexes) -> Links:
    """Return pairs (left < right) with equal keys that are not in one group yet."""
    import numpy as np

    order = np.argsort(key, kind="stable")
    ranked = key[order]
    same = np.flatnonzero(ranked[1:] == ranked[:-1])
    begins = np.flatnonzero(np.diff(ranked, prepend=ranked[:1] - np.uint64(1)))
    head = np.repeat(begins, np.diff(begins, append=len(ranked)))
    lefts, rights = [order[head[same + 1]]], [order[same + 1]]
    upper = same
    for step in range(1, WHOLE_BUCKET + 1):
        upper = upper[upper + step < len(ranked)]
        upper = upper[ranked[upper + step] == ranked[upper]]
        if not len(upper):
            break
        lefts.append(order[upper])
        rights.append(order[upper + step])
    left, right = np.concatenate(lefts), np.concatenate(rights)
    apart = group[left] != group[right]
    left, right = left[apart], right[apart]
    pairs = np.unique(np.minimum(left, right) * len(key) + np.maximum(left, right))
    return pairs // len(key), pairs % len(key)


def _components(count: int, left: Indexes, right: Indexes) -> Indexes:
    """Return (count,) number of the connected component of each node."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(left), np.bool_), (left, right)), shape=(count, count))
    labels: Indexes = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels


def map_threads(work: Callable[[T], R], items: Sequence[T], threads: int) -> list[R]:
    """Run ``work`` on each item, results in order; numpy lets go of the interpreter lock, so threads use the cores."""
    with ThreadPoolExecutor(max_workers=threads) as pool:
        return list(pool.map(work, items))

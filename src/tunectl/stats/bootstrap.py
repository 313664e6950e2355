"""Paired bootstrap intervals for corpus metrics, computed from sufficient statistics.

A corpus metric such as BLEU is a function of sums over items. One resample of the items is a vector of counts, so all
resamples of all sums are one matrix product, and a metric is recomputed for every resample without reading a text again.
Two systems are compared on the same resamples (paired), after Koehn, "Statistical Significance Tests for Machine Translation
Evaluation", EMNLP 2004; intervals are percentiles (Efron and Tibshirani, 1993).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

Combine = Callable[["NDArray[Any]"], "NDArray[Any]"]
"""Sums of statistics (..., statistics) -> values (...)."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A metric's value with the ends of its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Difference of a metric between two systems on the same items, with its interval and p-value."""

    value: float
    """First minus second, on all items."""
    low: float
    high: float
    probability: float
    """Two-sided bootstrap p-value of no difference: twice the smaller share of resamples on either side of zero."""


def resample_counts(items: int, resamples: int, seed: int) -> NDArray[Any]:
    """Return how often each item occurs in each resample; shape (resamples, items), each row sums to ``items``."""
    import numpy as np

    random = np.random.default_rng(seed)
    return random.multinomial(items, np.full(items, 1 / items), size=resamples).astype(np.float64)


def sum_by_group(statistics: NDArray[Any], groups: Sequence[str]) -> NDArray[Any]:
    """Return the sums of statistics per group, because items of one group (near duplicates) are not independent.

    ``statistics`` (items, statistics), ``groups`` one name per item; returns (groups, statistics) in order of appearance.
    """
    import numpy as np

    order = {name: index for index, name in enumerate(dict.fromkeys(groups))}
    total = np.zeros((len(order), statistics.shape[1]))
    np.add.at(total, [order[name] for name in groups], statistics)
    return total


def interval(statistics: NDArray[Any], combine: Combine, counts: NDArray[Any], confidence: float) -> Interval | None:
    """Return the metric of one system with its percentile interval; ``confidence`` is its coverage, 0 to 1.

    ``statistics`` (items, statistics); ``counts`` as ``resample_counts`` makes them. None with fewer than two items, where no
    resample differs from the data, or where the metric is undefined.
    """
    value = _on_all(statistics, combine)
    if value is None or len(statistics) < 2:
        return None
    ends = _ends(combine(counts @ statistics), confidence)
    return None if ends is None else Interval(value, *ends)


def difference(
    first: NDArray[Any], second: NDArray[Any], combine: Combine, counts: NDArray[Any], confidence: float
) -> PairedDifference | None:
    """Return first system minus second, with its interval, on the same items and the same resamples.

    Statistics are (items, statistics); ``confidence`` is the coverage, 0 to 1. None where the metric is undefined, or with too few items:
    n items all differ in one direction by chance with probability 2^(1-n), and no resample of them differs in the other one, so 95 %
    take six.
    """
    import numpy as np

    left, right = _on_all(first, combine), _on_all(second, combine)
    if left is None or right is None or 2.0 ** (1 - len(first)) > 1 - confidence:
        return None
    samples = combine(counts @ first) - combine(counts @ second)
    ends = _ends(samples, confidence)
    if ends is None:
        return None
    defined = samples[np.isfinite(samples)]
    above, below = float(np.mean(defined >= 0)), float(np.mean(defined <= 0))
    return PairedDifference(left - right, *ends, probability=min(1.0, 2 * min(above, below)))


def _on_all(statistics: NDArray[Any], combine: Combine) -> float | None:
    import numpy as np

    if not len(statistics):
        return None
    value = float(combine(statistics.sum(axis=0)))
    return value if np.isfinite(value) else None


def _ends(samples: NDArray[Any], confidence: float) -> tuple[float, float] | None:
    """Return percentiles of the resamples in which the metric is defined; None where it is in fewer than nine of ten."""
    import numpy as np

    defined = samples[np.isfinite(samples)]
    if len(defined) < 0.9 * len(samples):
        return None
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)

"""Two-sample tests by permutation: exact at their level for exchangeable rows, whatever the statistic.

The rows of window and reference lie in one pool. Were both drawn from one source, every way of dividing them into two groups of
those sizes would be as likely as the one that was seen, so the share of permutations with a statistic at least as large is a p-value:
(1 + count) / (1 + permutations). Everything a statistic learns (center, covariance, order, scale) it learns from the pool, which no
permutation changes; what was learned from the reference alone would tell the two apart by itself. Where fewer than ``FEW`` permutations reach the
statistic, they are too few to say how small the p-value is, and ``tail_probabilities`` says it.

Sources: Phipson and Smyth, "Permutation P-values Should Never Be Zero" (2010), for the p-value; Gretton et al., "A Kernel
Two-Sample Test", JMLR 13 (2012), for MMD; Harchaoui, Bach and Moulines, NIPS 2007, and Hagrass, Sriperumbudur and Li, Annals of
Statistics 52 (2024), for the spectrally regularized form of its part of means; Knijnenburg et al., "Fewer Permutations, More Accurate P-values",
Bioinformatics 25 (2009), for the number of permutations below which a tail takes over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from tunectl.monitoring import tail_probabilities, text_kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEW = 10
"""Number of permutations that reach the statistic, below which the p-value is computed from the tail instead of their share."""
BLOCK_NUMBERS = 4_000_000
"""Numbers of a block of permutations held at a time: 16 MB."""
SMALLEST = 1e-12
"""Smallest p-value that is returned: approximations are not reliable below it."""
TIE = 1e-5
"""Relative difference below which statistics are equal: single precision has no more digits."""


@dataclass(frozen=True, slots=True)
class TwoSampleResult:
    """Result of one two-sample test: statistic, p-value and effect size."""

    score: float
    """The statistic; drift makes it larger."""
    threshold: float
    """Value of the statistic that the given level requires."""
    p_value: float
    effect: float
    """Size of the difference, independent of the number of rows."""
    bar: float
    """The threshold as an effect."""


class Permutations:
    """Random divisions of ``n`` + ``m`` rows into groups of these sizes. The first is the observed one: ``n`` window rows, then the reference."""

    def __init__(self, n: int, m: int, count: int, seed: int) -> None:
        import numpy as np

        self.n, self.m, self.count, self.seed = n, m, count, seed
        self.few, self.many = min(n, m), max(n, m)
        random = np.random.default_rng([seed, n, m])
        rows = n + m
        mask = np.zeros((count + 1, rows), dtype=bool)
        mask[0, :n], mask[0, n:] = n <= m, n > m
        step = max(1, BLOCK_NUMBERS // rows)
        for start in range(1, count + 1, step):
            # the rows with the smallest random keys are a uniform draw without replacement
            keys = random.random((min(step, count + 1 - start), rows), dtype=np.float32)
            smallest = np.argpartition(keys, self.few - 1, axis=1)[:, : self.few]
            np.put_along_axis(mask[start : start + len(keys)], smallest, values=True, axis=1)
        self._mask = mask
        """Membership of the smaller group, (permutations + 1, rows); the other group is its complement."""

    def blocks(self, order: NDArray[Any] | None = None) -> Iterator[NDArray[Any]]:
        """Yield blocks (permutations, rows), single precision, in which 1 marks the smaller group; columns in ``order``."""
        import numpy as np

        step = max(1, BLOCK_NUMBERS // self._mask.shape[1])
        for start in range(0, len(self._mask), step):
            block = self._mask[start : start + step]
            yield (block if order is None else block[:, order]).astype(np.float32)

    def differences(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the mean of the smaller group minus that of the larger one; ``values`` (rows, d) -> (permutations + 1, d)."""
        import numpy as np

        centered = np.asarray(values - values.mean(axis=0), dtype=np.float32)
        sums = np.concatenate([block @ centered for block in self.blocks()])
        return sums * np.float32(1 / self.few + 1 / self.many)  # the sums of both groups add up to zero


class PermutationCache:
    """Cache of the permutations for the last three pairs (n, m) of numbers of rows.

    Drawing permutations takes longer than most tests, so all signals with the same numbers of rows share them. Each test stays exact, and
    the decision allows dependent tests (union bound). Three pairs, because pools have 1, 3 and 9 windows.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self._cache: dict[tuple[int, int], Permutations] = {}

    def get_permutations(self, n: int, m: int) -> Permutations:
        """Return permutations of ``n`` window rows and ``m`` reference rows."""
        if (n, m) not in self._cache:
            if len(self._cache) >= 3:
                del self._cache[next(iter(self._cache))]
            self._cache[n, m] = Permutations(n, m, self.count, self.seed)
        return self._cache[n, m]


def to_result(
    statistics: NDArray[Any], level: float, size: float = 1.0, tail: Callable[[float], float] | None = None
) -> TwoSampleResult:
    """Return score, threshold at ``level``, p-value and effect from the statistics of all permutations, the observed one first.

    ``size`` is the factor from score to effect. ``tail`` returns the p-value where fewer than ``FEW`` permutations reach the score.
    Raises  ValueError where there are too few permutations to reach the level at all.
    """
    import numpy as np

    observed, others = float(statistics[0]), statistics[1:]
    allowed = int(level * (len(others) + 1) + 1e-9)
    if allowed < 1:
        raise ValueError(
            f"{len(others)} permutations cannot reach a level of {level}; at least {ceil(1 / level) - 1} are needed"
        )
    near = observed - TIE * max(abs(observed), 1e-12)
    reached = int((others >= near).sum())
    p_value = (1 + reached) / (1 + len(others))
    if tail is not None and reached < FEW:
        p_value = min(max(tail(near), SMALLEST), p_value)
    threshold = float(np.partition(others, len(others) - allowed)[len(others) - allowed])
    return TwoSampleResult(observed, threshold, p_value, observed * size, threshold * size)


def mmd(parts: Sequence[NDArray[Any]], permutations: Permutations, level: float) -> TwoSampleResult:
    """Test the squared distance of two means under the kernel of ``text_kernel`` at ``level``, and return the result.

    ``parts``, each (rows, d) with the window's rows first, are one feature map together. The score is in standard deviations. The
    effect is the score without its dependence on the numbers of rows: the chance part of a squared distance is proportional to
    1/n + 1/m.
    """
    import numpy as np

    values = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
    kernel, scale = text_kernel.build_kernel(values, permutations.seed), 1 / permutations.n + 1 / permutations.m
    if kernel is None:
        return to_result(np.zeros(permutations.count + 1), level, scale)
    null, chance = kernel.null, scale * len(values) / (len(values) - 1)  # the variance of a difference of means
    means = np.einsum("ij,ij->i", *[permutations.differences(kernel.axes)] * 2, dtype=np.float64)
    neighbors = scale**2 * np.concatenate([kernel.graph_form(block) for block in permutations.blocks()])
    scores = ((means + neighbors) / chance - null.mean) / null.spread
    return to_result(scores, level, scale, lambda score: null.tail(score, permutations.n, permutations.m))


def wasserstein(values: NDArray[Any], permutations: Permutations, level: float) -> TwoSampleResult:
    """Return the test of the earth mover's distance of two groups at ``level``, in standard deviations of both together.

    ``values`` (rows,): those of the window, then those of the reference.
    """
    import numpy as np

    order = np.argsort(values, kind="stable")
    spread = float(values.std())
    gaps = np.diff(values[order]) / spread if spread > 0 else np.zeros(len(values) - 1)
    scale = 1 / permutations.few + 1 / permutations.many
    result = []
    for block in permutations.blocks(order):
        differences = np.cumsum(block * np.float32(scale) - np.float32(1 / permutations.many), axis=1)
        result.append(np.abs(differences[:, :-1]) @ gaps.astype(np.float32))
    ordered = values[order] / spread if spread > 0 else values[order]
    return to_result(
        np.concatenate(result),
        level,
        tail=lambda score: tail_probabilities.wasserstein_tail(
            ordered, permutations.n, permutations.m, score, permutations.seed
        ),
    )


def difference_of_means(values: NDArray[Any], permutations: Permutations, level: float) -> TwoSampleResult:
    """Return the test of the difference of two means at ``level``, in standard deviations of both groups together (Cohen's d).

    ``values`` (rows,): those of the window, then those of the reference.
    """
    import numpy as np

    spread = float(values.std())
    unit = spread if spread > 1e-12 else 1.0
    result = np.abs(permutations.differences(values[:, None])[:, 0])
    return to_result(
        result / unit,
        level,
        tail=lambda score: tail_probabilities.mean_difference_tail(values, permutations.n, score * unit),
    )


def total_variation(codes: NDArray[Any], permutations: Permutations, level: float) -> TwoSampleResult:
    """Return the test of the total variation distance, 0 to 1, between the categories of two groups at ``level``.

    ``codes`` (rows,): category numbers from 0, those of the window, then those of the reference.
    """
    import numpy as np

    members = np.zeros((len(codes), int(codes.max()) + 1), dtype=np.float32)
    members[np.arange(len(codes)), codes] = 1
    return to_result(
        np.abs(permutations.differences(members)).sum(axis=1) / 2,
        level,
        tail=lambda _score: tail_probabilities.variation_tail(codes, permutations.n, permutations.seed),
    )


def difference_of_shares(flags: NDArray[Any], permutations: Permutations, level: float) -> TwoSampleResult:
    """Return the test of the difference of two shares, 0 to 1, at ``level``.

    ``flags`` (rows,) of 0 and 1: those of the window, then those of the reference.
    """
    import numpy as np

    result = np.abs(permutations.differences(flags[:, None].astype(np.float32))[:, 0])
    ones = int(flags.sum())
    return to_result(
        result,
        level,
        tail=lambda score: tail_probabilities.share_difference_tail(ones, permutations.n, permutations.m, score),
    )

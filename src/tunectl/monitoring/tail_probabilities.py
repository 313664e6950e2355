"""Tails of permutation distributions: probabilities that are too small for random permutations.

A verdict with one false alarm in a thousand evaluations, shared by a dozen signals and three pools, needs p-values of 10^-5.
Random permutations estimate those of 10^-2 well; for smaller ones the distribution is computed: exactly for shares, by sampling counts for
categories, by a saddlepoint approximation for differences of means, by three cumulants for quadratic statistics, by a Gaussian
process for the earth mover's distance. ``tests/unit/monitoring/test_tail_probabilities.py`` compares each with a million permutations.

Sources: Imhof, "Computing the Distribution of Quadratic Forms in Normal Variables", Biometrika 48 (1961), for three cumulants;
Robinson, "Saddlepoint Approximations for Permutation Tests and Confidence Intervals", JRSS B 44 (1982); Booth and Butler,
"Randomization Distributions and Saddlepoint Approximations in Generalized Linear Models", Biometrika 77 (1990).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

DRAWS = 300_000
"""Draws of what is sampled: a p-value of 10^-5 is three of them."""
THRESHOLDS = 32
"""Points at which the difference of two distributions of numbers is evaluated."""
CATEGORIES = 8
"""Categories whose counts are sampled; the rarest of more are merged."""
MARGIN = 0.92
"""Exponent of p-values of the earth mover's distance and of texts: with skewed numbers, and texts in a few dense clusters, 10^-5 occurs
two to four times as often as computed."""
NEWTON_STEPS = 60
MIN_SKEWNESS = 1e-3
"""Skewness below which a distribution is treated as normal."""


def pearson_tail(standard: float, skewness: float) -> float:
    """Return P(X >= ``standard``) of X with mean zero, variance one and that skewness: a shifted gamma distribution."""
    from scipy.special import gammaincc, ndtr

    if skewness < MIN_SKEWNESS:
        return float(ndtr(-standard))
    shape = 4 / skewness**2
    return float(gammaincc(shape, max(shape + standard * shape**0.5, 0.0)))


def mean_difference_tail(values: NDArray[Any], n: int, difference: float) -> float:
    """Return P(|mean of ``n`` of the values, drawn without replacement, minus the mean of the others| >= difference)."""
    import numpy as np

    spread = float(values.std())
    if spread <= 0:
        return 1.0
    standard = (np.asarray(values, dtype=np.float64) - values.mean()) / spread
    total = difference / spread / (1 / n + 1 / (len(values) - n))  # the sum of the drawn ones
    return min(1.0, _sum_tail(standard, n, total) + _sum_tail(-standard, n, total))


def _sum_tail(values: NDArray[Any], n: int, total: float) -> float:
    """Return P(sum of ``n`` of the values, which are centered, drawn without replacement >= total), by a double saddlepoint."""
    import numpy as np
    from scipy.special import log_ndtr

    rows = len(values)
    share = n / rows
    if total >= np.sort(values)[-n:].sum() * (1 - 1e-6):
        return 0.0
    tilt = np.zeros(2)
    design = np.stack([np.ones(rows), values], axis=1)
    target, variance = np.array([n, total]), rows * share * (1 - share)
    offset = np.log(share / (1 - share))
    best = np.inf
    for _ in range(NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(offset + design @ tilt, -500, 500)))
        gap = target - chance @ design
        hessian = design.T @ (design * (chance * (1 - chance))[:, None])
        if float(np.abs(gap).max()) < 1e-8 * rows:
            break
        step = np.linalg.solve(hessian + 1e-12 * np.eye(2), gap)
        best = float(np.abs(step).max())
        tilt = tilt + step * min(1.0, 2.0 / best)
    cumulant = np.log1p(share * np.expm1(np.clip(design @ tilt, -500, 500))).sum()
    root = np.sign(tilt[1]) * np.sqrt(max(2 * (tilt @ target - cumulant), 0.0))
    wald = tilt[1] * np.sqrt(max(np.linalg.det(hessian), 1e-300) / variance)
    if abs(root) < 1e-3 or wald / root <= 0:
        return 0.5
    return float(np.exp(log_ndtr(-(root + np.log(wald / root) / root))))


def share_difference_tail(ones: int, n: int, m: int, difference: float) -> float:
    """Return P(|difference of two shares| >= difference) where ``ones`` of ``n`` + ``m`` rows have the property: exact."""
    import numpy as np
    from scipy.stats import hypergeom

    counts = np.arange(max(0, ones - m), min(n, ones) + 1)
    differences = np.abs(counts / n - (ones - counts) / m)
    return float(hypergeom.pmf(counts, n + m, ones, n)[differences >= difference - 1e-9].sum())


def variation_tail(codes: NDArray[Any], n: int, seed: int) -> float:
    """Return P(total variation distance >= that of the first ``n`` rows), over random counts of the categories ``codes`` (rows,)."""
    import numpy as np

    size = int(codes.max()) + 1
    total, observed = np.bincount(codes, minlength=size), np.bincount(codes[:n], minlength=size)
    order = np.argsort(-total, kind="stable")
    total, observed = total[order], observed[order]
    if size > CATEGORIES:
        total, observed = (
            np.append(each[: CATEGORIES - 1], each[CATEGORIES - 1 :].sum()) for each in (total, observed)
        )
    m = len(codes) - n
    if len(total) <= 2:
        ones = int(total[0])
        return share_difference_tail(ones, n, m, abs(float(observed[0] / n - (ones - observed[0]) / m)))
    samples = np.random.default_rng([seed, n, m]).multivariate_hypergeometric(total, n, size=DRAWS, method="marginals")
    distance = np.abs(
        np.concatenate([observed[None], samples]) / n - (total - np.concatenate([observed[None], samples])) / m
    )
    summed = distance.sum(axis=1)
    return float((1 + (summed[1:] >= summed[0] - 1e-9).sum()) / (1 + DRAWS))


def wasserstein_tail(ordered: NDArray[Any], n: int, m: int, distance: float, seed: int) -> float:
    """Return P(earth mover's distance of ``n`` and ``m`` rows >= ``distance``), by the Gaussian process of the pool's ranks.

    ``ordered`` (rows,) is the sorted pool.
    """
    import numpy as np

    _, widths, levels = follow_ranks(ordered)
    if not len(widths):
        return 1.0
    samples = draw_rank_distances(widths, levels, DRAWS, seed) * np.sqrt(1 / n + 1 / m)
    return float(((1 + (samples >= distance).sum()) / (1 + DRAWS)) ** MARGIN)


def follow_ranks(ordered: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return a grid for comparing two distributions of the sorted values ``ordered``: (value, interval width, share of values below), each (k,)."""
    import numpy as np

    last = len(ordered) - 1
    inner = np.linspace(0, last, THRESHOLDS + 1).round().astype(int)
    ends = 2 ** np.arange(int(np.log2(max(last, 1))) + 1)  # a heavy tail is wide where few rows lie
    edges = np.unique(np.concatenate([inner, ends, last - ends]))
    gaps, ranks = np.diff(ordered).astype(np.float64), np.arange(1, len(ordered)) / len(ordered)
    widths, levels = np.add.reduceat(gaps, edges[:-1]), np.add.reduceat(gaps * ranks, edges[:-1])
    occupied = widths > 0
    levels = levels[occupied] / widths[occupied]
    values = np.asarray(ordered, dtype=np.float64)[np.floor(levels * len(ordered) - 1e-9).astype(int).clip(0, last)]
    return values, widths[occupied], levels


def draw_rank_distances(widths: NDArray[Any], levels: NDArray[Any], draws: int, seed: int) -> NDArray[Any]:
    """Return ``draws`` random earth mover's distances (draws,) of two samples of one distribution, in units of sqrt(1/n + 1/m)."""
    import numpy as np

    bridge = np.minimum.outer(levels, levels) - np.outer(levels, levels)
    factor = np.linalg.cholesky(bridge + 1e-10 * np.eye(len(levels))).T.astype(np.float32)
    random, step = np.random.default_rng(seed), 30_000
    blocks = [
        random.standard_normal((min(step, draws - start), len(levels)), dtype=np.float32)
        for start in range(0, draws, step)
    ]
    return np.concatenate([np.abs(block @ factor) @ widths.astype(np.float32) for block in blocks])

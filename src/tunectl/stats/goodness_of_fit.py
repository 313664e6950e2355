"""Test whether observed counts fit declared shares: Pearson's test, exact where counts are small."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import comb, exp, inf, lgamma, log, sqrt
from typing import Literal

from msgspec import Struct

from tunectl.core.optional import import_optional

MAX_OUTCOMES = 50_000
"""Number of outcomes up to which all are enumerated."""

DRAWS = 9_999
"""Draws of the Monte Carlo test: its p value is exact to about 0.004."""

Method = Literal["chi-square", "exact", "monte-carlo"]


class GoodnessOfFit(Struct, frozen=True):
    """Result of a test of counts against expected shares; ``effect`` is Cohen's w."""

    statistic: float | None
    """Pearson's chi-square; None where a value with share 0 occurs, which chance cannot explain."""
    p_value: float
    """Probability of counts at least as different if the shares were true, for independent rows."""
    effect: float | None
    """Cohen's w: the distance of the shares, independent of the number of rows. 0.1 is small, 0.3 medium, 0.5 large."""
    method: Method


def chi_square_test(counts: Sequence[int], shares: Sequence[float], *, seed: int) -> GoodnessOfFit:
    """Test the ``counts`` of values against their expected ``shares``, which add up to 1; return the result.

    Chi-square where every expected count is 5 or more; else all outcomes are enumerated (exact multinomial test), or, where
    there are too many of them, sampled (seeded).
    Source: Cochran (1954) for the rule of five; Cohen (1988) for w; Davison and Hinkley (1997) for the Monte Carlo p value.
    Raises  ValueError for lists of different lengths, no rows, or fewer than two values.
    """
    total = sum(counts)
    if len(counts) != len(shares) or len(counts) < 2 or total <= 0:
        raise ValueError(
            f"{len(counts)} counts of {total} rows cannot be tested against {len(shares)} shares; give as many shares as counts, two or more"
        )
    statistic = _pearson(counts, shares, total)
    if statistic == inf:
        return GoodnessOfFit(None, 0.0, None, "exact")
    positive = [(count, share) for count, share in zip(counts, shares, strict=True) if share > 0]
    p_value, method = _p_value(statistic, [share for _, share in positive], total, seed)
    return GoodnessOfFit(statistic, p_value, sqrt(statistic / total), method)


def _p_value(statistic: float, shares: list[float], total: int, seed: int) -> tuple[float, Method]:
    if len(shares) < 2:
        return 1.0, "exact"
    if min(shares) * total >= 5:
        chi2 = import_optional("scipy.stats", extra="data").chi2

        return float(chi2.sf(statistic, len(shares) - 1)), "chi-square"
    if comb(total + len(shares) - 1, len(shares) - 1) <= MAX_OUTCOMES:
        return _exact(statistic, shares, total), "exact"
    return _monte_carlo(statistic, shares, total, seed), "monte-carlo"


def _pearson(counts: Sequence[int], shares: Sequence[float], total: int) -> float:
    distance = 0.0
    for count, share in zip(counts, shares, strict=True):
        if share > 0:
            distance += (count - total * share) ** 2 / (total * share)
        elif count:
            return inf
    return distance


def _exact(statistic: float, shares: list[float], total: int) -> float:
    logs = [log(share) for share in shares]
    tail = 0.0
    for counts in _outcomes(total, len(shares)):
        if _pearson(counts, shares, total) >= statistic * (1 - 1e-9):
            spread = sum(count * part - lgamma(count + 1) for count, part in zip(counts, logs, strict=True))
            tail += exp(lgamma(total + 1) + spread)
    return min(1.0, tail)


def _outcomes(total: int, values: int) -> Iterator[tuple[int, ...]]:
    if values == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in _outcomes(total - first, values - 1):
            yield (first, *rest)


def _monte_carlo(statistic: float, shares: list[float], total: int, seed: int) -> float:
    np = import_optional("numpy", extra="data")

    probabilities = np.asarray(shares) / sum(shares)
    draws = np.random.default_rng(seed).multinomial(total, probabilities, size=DRAWS)
    distances = ((draws - total * probabilities) ** 2 / (total * probabilities)).sum(axis=1)
    return float((1 + (distances >= statistic * (1 - 1e-9)).sum()) / (1 + DRAWS))


def effect_size_label(effect: float | None) -> str:
    """Return Cohen's label of an effect size w (negligible, small, medium, large); for None ``impossible by chance``."""
    if effect is None:
        return "impossible by chance"
    names = ((0.1, "negligible"), (0.3, "small"), (0.5, "medium"))
    return next((name for limit, name in names if effect < limit), "large")

"""Effective sample size of rows that come in groups, or have weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tunectl.stats.raking import effective_sample_size


@dataclass(frozen=True, slots=True)
class EffectiveSize:
    """Number of independent rows with equal weights that give the same precision, for each value and for all rows."""

    each: list[float]
    """Effective size for the share of each value."""
    all: float
    """Effective size for all shares together, as a test of them needs it."""


def effective_size(
    codes: Sequence[int], values: int, weights: Sequence[float], clusters: Sequence[str]
) -> EffectiveSize:
    """Return the effective sample size of rows with value ``codes`` (0 to ``values`` - 1), loss weights and cluster names.

    Ten ads of one business say as much about its neighbourhood as one. The variance of each share is taken between clusters
    (linearized); the effective size is the number of independent rows with the same variance, at most Kish's number.
    Source: Kish (1965) for the design effect; Rao and Scott (1981), JASA 76, for the test; Korn and Graubard (1998),
    Survey Methodology 24, for intervals with an effective number.
    Raises  ValueError where there are no rows.
    """
    if not codes:
        raise ValueError("codes is empty; at least one row is needed")
    inside: dict[str, list[float]] = defaultdict(lambda: [0.0] * values)
    for code, weight, cluster in zip(codes, weights, clusters, strict=True):
        inside[cluster][code] += weight
    sizes = {cluster: sum(parts) for cluster, parts in inside.items()}
    most, least = effective_sample_size(weights), effective_sample_size(list(sizes.values()))
    if len(sizes) < 2:
        return EffectiveSize([1.0] * values, 1.0)
    total = sum(sizes.values())
    shares = [sum(parts[value] for parts in inside.values()) / total for value in range(values)]
    each = []
    for value, share in enumerate(shares):
        spread = sum((parts[value] - share * sizes[cluster]) ** 2 for cluster, parts in inside.items())
        variance = spread * len(sizes) / (len(sizes) - 1) / total**2
        each.append(min(most, max(1.0, share * (1 - share) / variance)) if variance > 0 else min(most, least))
    return EffectiveSize(each, _together(shares, each, least))


def _together(shares: Sequence[float], each: Sequence[float], minimum: float) -> float:
    """Return Rao and Scott's first correction: the mean design effect, weighted by one minus the share."""
    positive = [(share, number) for share, number in zip(shares, each, strict=True) if 0 < share < 1]
    if len(positive) < 2:
        return minimum
    return (len(positive) - 1) / sum((1 - share) / number for share, number in positive)

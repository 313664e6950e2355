"""Confidence intervals of a share."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist


def wilson_interval(successes: float, total: float, *, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a share, low and high from 0 to 1.

    ``successes`` of ``total`` independent rows; ``level`` is the nominal coverage. Unlike the textbook interval it keeps
    its coverage for rare values and small totals, and is never empty: 0 of 10 gives 0 to 0.28.
    Source: Wilson (1927), JASA 22; recommended by Brown, Cai and DasGupta (2001), Statistical Science 16.
    Raises  ValueError where ``total`` is not above zero or ``successes`` is outside it.
    """
    if total <= 0 or not 0 <= successes <= total:
        raise ValueError(f"{successes} of {total} is not a share; total must be above 0, and successes from 0 to total")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share, spread = successes / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * sqrt(share * (1 - share) / total + spread / (4 * total))
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == total else min(1.0, middle + half)
    return low, high

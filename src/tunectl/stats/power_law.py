"""Fit a learning curve as a power law: score = limit + slope * rows ** -decay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunectl.core.optional import import_optional

DECAYS = (0.05, 2.0, 60)
"""Smallest and largest decay that is tried, and how many values, spaced evenly in logarithm. Published curves have 0.07 to 0.5."""


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """Parameters of a fitted learning curve; ``slope`` is negative where a higher score is better."""

    limit: float
    slope: float
    decay: float

    def predict(self, rows: float) -> float:
        """Return the score that the curve expects with ``rows`` training rows."""
        return float(self.limit + self.slope * rows**-self.decay)


def fit(
    rows: Sequence[float], scores: Sequence[float], *, higher_is_better: bool, floor: float | None = None
) -> PowerLaw:
    """Return the power law fitted by least squares to ``scores`` at ``rows`` training rows (three or more different sizes).

    The curve never gets worse with more rows: where the points do, the best flat line is returned (slope 0).
    ``floor`` is the smallest possible limit: 0 for a loss, which no amount of data reduces below it.
    Source: Hestness et al. (2017), arXiv 1712.00409; Kaplan et al. (2020), arXiv 2001.08361.
    Raises  ValueError for fewer than three sizes.
    """
    limit, slope, decay = fit_many(rows, [scores], higher_is_better=higher_is_better, floor=floor)
    return PowerLaw(float(limit[0]), float(slope[0]), float(decay[0]))


def fit_many(
    rows: Sequence[float], scores: Any, *, higher_is_better: bool, floor: float | None = None
) -> tuple[Any, Any, Any]:
    """Fit many curves at once, as ``fit`` does; return arrays of limits, slopes and decays, shape (curves,) each.

    ``scores`` is an array (curves, sizes), measured at ``rows`` (sizes); ``floor`` is the smallest possible limit.
    """
    np = import_optional("numpy", extra="data")

    sizes, y = np.asarray(rows, dtype=float), np.asarray(scores, dtype=float)
    if len(set(sizes.tolist())) < 3:
        raise ValueError(f"a power law needs three different sizes in rows, not {len(set(sizes.tolist()))}")
    mean = y.mean(axis=1)
    best = ((y - mean[:, None]) ** 2).sum(axis=1)
    limit, slope, decay = mean.copy(), np.zeros(len(y)), np.ones(len(y))
    for tried in np.geomspace(*DECAYS):
        x = sizes**-tried
        spread = x - x.mean()
        slopes = (y - mean[:, None]) @ spread / (spread**2).sum()
        slopes = np.minimum(slopes, 0) if higher_is_better else np.maximum(slopes, 0)
        limits = mean - slopes * x.mean()
        if floor is not None:
            fixed = limits < floor
            through = np.maximum((y - floor) @ x / (x**2).sum(), 0)  # least squares with the limit at the floor
            limits, slopes = np.where(fixed, floor, limits), np.where(fixed, through, slopes)
        error = ((y - limits[:, None] - slopes[:, None] * x) ** 2).sum(axis=1)
        better = error < best - 1e-15
        best = np.where(better, error, best)
        limit, slope = np.where(better, limits, limit), np.where(better, slopes, slope)
        decay = np.where(better, tried, decay)
    return limit, slope, decay

"""Raking: weights that adjust rows to declared shares of several fields at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunectl.core.optional import import_optional

ROUNDS = 500
TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Margin:
    """One field to adjust: a value's index for each row (-1: unknown, left out of this field), and the share that each value should have."""

    codes: Sequence[int]
    shares: Sequence[float]


@dataclass(frozen=True, slots=True)
class RakingResult:
    """Weights with mean 1, how far (``gap``) the weighted shares are from the declared ones, and the effective number of rows."""

    weights: list[float]
    gap: float
    """Largest distance between a reached and a declared share, also of values that no row has; 0 is perfect."""
    effective: float
    """Kish's effective number of rows: (sum w)^2 / sum w^2."""
    rounds: int


def rake(margins: Sequence[Margin], rows: int, *, low: float, high: float) -> RakingResult:
    """Return weights from ``low`` to ``high`` (around a mean of 1) that fit each margin's shares, by iterative proportional fitting.

    A value without a row cannot be reached: its share is spread over the others in proportion. A value whose share is 0
    gets the smallest weight. Rows unknown to a field are left as they are in that field.
    Source: Deming and Stephan (1940), Annals of Mathematical Statistics 11; Kish (1965) for the effective number.
    Raises  ValueError where there are no rows, or limits that do not hold 1.
    """
    np = import_optional("numpy", extra="data")

    if rows <= 0 or not 0 < low <= 1 <= high:
        raise ValueError(
            f"{rows} rows cannot be weighted between {low} and {high}; rows must be above 0, low at most 1 and high at least 1"
        )
    fields = [(np.asarray(margin.codes), _reachable(margin)) for margin in margins]
    weights, rounds, moved = np.ones(rows), 0, 1.0
    while rounds < ROUNDS and moved > TOLERANCE:
        before = weights
        for codes, shares in fields:
            weights = _fit(weights, codes, shares)
        weights = _limit(weights, low, high)
        rounds, moved = rounds + 1, float(abs(weights - before).max())
    gap = max((_gap(weights, margin) for margin in margins), default=0.0)
    return RakingResult(weights.tolist(), gap, effective_sample_size(weights.tolist()), rounds)


def effective_sample_size(weights: Sequence[float]) -> float:
    """Return Kish's effective number of rows under ``weights``; with equal weights it is their number."""
    squares = sum(weight * weight for weight in weights)
    return sum(weights) ** 2 / squares if squares else 0.0


def _reachable(margin: Margin) -> Any:
    """Return the shares, with those of values without a row spread over the others."""
    np = import_optional("numpy", extra="data")

    shares = np.asarray(margin.shares, dtype=float)
    codes = np.asarray(margin.codes)
    present = np.bincount(codes[codes >= 0], minlength=len(shares)) > 0
    shares = np.where(present, shares, 0.0)
    return shares / shares.sum() if shares.sum() > 0 else shares


def _fit(weights: Any, codes: Any, shares: Any) -> Any:
    np = import_optional("numpy", extra="data")

    if not shares.any():
        return weights
    known_rows = codes >= 0
    sums = np.bincount(codes[known_rows], weights[known_rows], minlength=len(shares))
    target = shares * sums.sum()
    factors = np.divide(target, sums, out=np.ones_like(sums), where=sums > 0)
    fitted = weights.copy()
    fitted[known_rows] *= factors[codes[known_rows]]
    return np.maximum(fitted, 1e-12)


def _limit(weights: Any, low: float, high: float) -> Any:
    """Scale so that the mean is 1 after clipping: by bisection, because clipping moves the mean."""
    np = import_optional("numpy", extra="data")

    below, above = low / weights.max(), high / weights.min()
    for _ in range(100):
        middle = float(np.sqrt(below * above))
        if np.clip(weights * middle, low, high).mean() < 1:
            below = middle
        else:
            above = middle
    return np.clip(weights * above, low, high)


def _gap(weights: Any, margin: Margin) -> float:
    np = import_optional("numpy", extra="data")

    codes = np.asarray(margin.codes)
    known_rows = codes >= 0
    target = np.asarray(margin.shares, dtype=float)
    if not known_rows.any():
        return float(target.max())
    sums = np.bincount(codes[known_rows], weights[known_rows], minlength=len(target))
    return float(abs(sums / sums.sum() - target).max())

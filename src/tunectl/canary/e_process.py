"""Evidence as the money of somebody who bets on it: what a sequential test may look at as often as it likes. Pure.

With p the challenger's share and m a prediction made before the unit came,

    x = (in challenger ? 1/p : -1/(1-p)) * (outcome - m)

has the expectation "challenger minus champion" by the random assignment alone, whatever the outcomes are distributed like.
Someone who bets a fixed share of their money on "x is above d" cannot expect to win while it is not; a mixture over shares is
such a bettor, too. Wealth of 1/alpha therefore refutes "the difference is d or less" at level alpha, at any time of looking.
Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024 (arXiv 2010.09686);
        Ville (1939); the predicted m is the control variate of augmented inverse probability weighting.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, Any, Final

from tunectl.core.optional import import_optional

if TYPE_CHECKING:
    from numpy.typing import NDArray

BETS: Final = tuple(0.9 * 0.62**step for step in range(14))
"""Shares of the largest bet that can never lose everything; each gets an equal part of the money."""


def ipw_outcomes(variant: NDArray[Any], outcome: NDArray[Any], share: float) -> NDArray[Any]:
    """Return X of the module's text; the prediction is the mean of the outcomes before, of both variants."""
    np = import_optional("numpy", extra="retrain")
    before = (np.cumsum(outcome) - outcome + 0.5) / (np.arange(len(outcome)) + 1)
    weighed: NDArray[Any] = np.where(variant, 1 / share, -1 / (1 - share)) * (outcome - before)
    return weighed


def log_e_process(x: NDArray[Any], minimum: float, share: float) -> NDArray[Any]:
    """Return the logarithm of the money after each unit of somebody who bets that the mean of ``x`` is above ``minimum``."""
    np = import_optional("numpy", extra="retrain")
    largest = 1 / (max(1 / share, 1 / (1 - share)) + abs(minimum))
    total: NDArray[Any] = np.full(len(x), -np.inf)
    for bet in BETS:
        total = np.logaddexp(total, np.cumsum(np.log1p(bet * largest * (x - minimum))))
    total -= log(len(BETS))
    return total


def sample_ratio_mismatch(variant: NDArray[Any], share: float) -> NDArray[Any]:
    """Return the logarithm of the money of somebody who bets that the challenger does not get its share, either way."""
    np = import_optional("numpy", extra="retrain")
    off = variant.astype(float) - share
    total: NDArray[Any] = np.full(len(off), -np.inf)
    for sign in (1, -1):
        for bet in BETS:
            total = np.logaddexp(total, np.cumsum(np.log1p(sign * bet * off)))
    total -= log(2 * len(BETS))
    return total

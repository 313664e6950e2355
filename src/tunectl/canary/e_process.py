"""E-processes (test martingales) for a bounded mean: evidence that may be checked after every unit. Pure.

With p the challenger's share and m a prediction made before the unit,

    x = (in challenger ? 1/p : -1/(1-p)) * (outcome - m)

has the mean "challenger minus champion" because of the random assignment, for any distribution of the outcomes. Under "the mean
of x is d or less" the product of (1 + bet * (x - d)) is a supermartingale, and so is a mixture over bets. By Ville's inequality a
value of 1/alpha refutes that hypothesis at level alpha, however often it is checked.
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
"""Bets of the mixture, as shares of the largest bet that keeps every factor positive; all have the same weight."""


def ipw_outcomes(variant: NDArray[Any], outcome: NDArray[Any], share: float) -> NDArray[Any]:
    """Return inverse-probability-weighted outcomes (units,), whose mean is challenger minus champion.

    The control variate is the mean outcome of all earlier units, of both variants.
    ``variant`` (units,) is whether the challenger answered, ``outcome`` (units,) from 0 to 1, ``share`` that of the challenger.
    """
    np = import_optional("numpy", extra="retrain")
    before = (np.cumsum(outcome) - outcome + 0.5) / (np.arange(len(outcome)) + 1)
    outcomes: NDArray[Any] = np.where(variant, 1 / share, -1 / (1 - share)) * (outcome - before)
    return outcomes


def log_e_process(x: NDArray[Any], minimum: float, share: float) -> NDArray[Any]:
    """Return the log e-value after each unit against "the mean of ``x`` is ``minimum`` or less"; (units,).

    ``x`` (units,) comes from ``ipw_outcomes`` with the same ``share`` of the challenger.
    """
    np = import_optional("numpy", extra="retrain")
    # |x| is at most max(1/p, 1/(1-p)), so no factor 1 + bet * (x - minimum) reaches zero
    largest = 1 / (max(1 / share, 1 / (1 - share)) + abs(minimum))
    total: NDArray[Any] = np.full(len(x), -np.inf)
    for bet in BETS:
        total = np.logaddexp(total, np.cumsum(np.log1p(bet * largest * (x - minimum))))
    total -= log(len(BETS))
    return total


def sample_ratio_mismatch(variant: NDArray[Any], share: float) -> NDArray[Any]:
    """Return the log e-value after each unit against "the challenger answers the share ``share`` of units", two-sided; (units,).

    ``variant`` (units,) is whether the challenger answered.
    """
    np = import_optional("numpy", extra="retrain")
    off = variant.astype(float) - share
    total: NDArray[Any] = np.full(len(off), -np.inf)
    for sign in (1, -1):
        for bet in BETS:
            total = np.logaddexp(total, np.cumsum(np.log1p(sign * bet * off)))
    total -= log(2 * len(BETS))
    return total

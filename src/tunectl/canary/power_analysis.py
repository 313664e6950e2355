"""How many identities a canary needs, simulated before it begins. Pure."""

from __future__ import annotations

from math import log

from msgspec import Struct

from tunectl.canary import e_process
from tunectl.canary.sequential_test import SequentialTestRules, validate_rules
from tunectl.core.errors import UsageError
from tunectl.core.optional import import_optional


class PowerAnalysis(Struct, frozen=True):
    """Number of identities that a canary needs for an assumed effect, from simulated canaries."""

    effect: float
    power: float
    """Share of simulated canaries that reached the goal."""
    half: int | None
    """Units of both variants after which half of them had reached it; None: fewer did."""
    most: int | None
    """Units of both variants after which four of five had reached it; None: fewer did."""


def simulate_power(
    rules: SequentialTestRules, *, rate: float, effect: float, horizon: int, seed: int, repetitions: int = 200
) -> PowerAnalysis:
    """Return the power over simulated canaries: outcomes are 1 with ``rate`` for the champion, ``rate + effect`` for the challenger.

    ``horizon`` is the number of units after which a simulated canary ends.
    Raises  UsageError for rates outside 0 to 1.
    """
    validate_rules(rules)
    if not (0 <= rate <= 1 and 0 <= rate + effect <= 1):
        raise UsageError(
            f"rate = {rate:g} and effect = {effect:+g}: the rate and their sum must be from 0 to 1",
            hint="change --rate or --effect",
        )
    np = import_optional("numpy", extra="retrain")
    random = np.random.default_rng(seed)
    needed = []
    for _ in range(repetitions):
        variant = random.random(horizon) < rules.share
        outcome = (random.random(horizon) < np.where(variant, rate + effect, rate)).astype(float)
        path = e_process.log_e_process(
            e_process.ipw_outcomes(variant, outcome, rules.share), -rules.margin, rules.share
        )
        enough = np.minimum(np.cumsum(variant), np.cumsum(~variant)) >= rules.min_units_per_variant
        over = (np.maximum.accumulate(path) >= log(1 / rules.alpha)) & enough
        needed.append(int(over.argmax()) + 1 if over.any() else horizon + 1)
    ordered = sorted(needed)

    def by(share: float) -> int | None:
        result = ordered[int(share * (repetitions - 1))]
        return result if result <= horizon else None

    return PowerAnalysis(effect, sum(item <= horizon for item in needed) / repetitions, by(0.5), by(0.8))

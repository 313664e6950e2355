"""The gate's decisions in seeded simulations whose right answer is known (fault 26)."""

from __future__ import annotations

import numpy as np

from scenarios.fault_result import FaultResult
from tunectl.retraining import promotion_gate
from tunectl.retraining.promotion_gate import GateCheck, GateComparison, GateLimits, Guardrail
from tunectl.stats.proportion_ci import wilson_interval

LIMITS = GateLimits(margin=2.0, matters=2.0, golden_items=50, slice_items=30, resamples=500)
FINE = [GateCheck("loads", True, "in 2 s"), GateCheck("time", True, "0.2 s")]
SLOW = [*FINE, GateCheck("time", False, "9.1 s an answer, 3 s are allowed")]
SAFE = [Guardrail("harmful answers", 0.0, 0.0, most=True)]
UNSAFE = [Guardrail("harmful answers", 0.1, 0.0, most=True)]
CASES: dict[str, tuple[tuple[float, float], tuple[float, float], list[Guardrail], list[GateCheck], str]] = {
    "worse": ((0.60, 0.50), (0.40, 0.40), SAFE, FINE, "reject"),
    "equal": ((0.60, 0.60), (0.40, 0.40), SAFE, FINE, "reject"),
    "better": ((0.60, 0.60), (0.40, 0.48), SAFE, FINE, "promote"),
    "better where it drifted, worse elsewhere": ((0.60, 0.55), (0.40, 0.48), SAFE, FINE, "reject"),
    "better but slower": ((0.60, 0.60), (0.40, 0.48), SAFE, SLOW, "reject"),
    "better but unsafe": ((0.60, 0.60), (0.40, 0.48), UNSAFE, FINE, "reject"),
}
"""Means of champion and challenger on golden set and slice, floors, checks, and what must be said."""


def percent(sums: np.ndarray) -> np.ndarray:
    """Sums of statistics as points."""
    return 100 * sums[..., 0] / sums[..., 1]


def part(name: str, champion: float, challenger: float, items: int, seed: int) -> GateComparison:
    """Paired scores from 0 to 1 around two means, half of the noise shared."""
    random = np.random.default_rng(seed)
    shared = random.normal(0, 0.06, items)
    tables = [
        np.column_stack([np.clip(mean + shared + random.normal(0, 0.06, items), 0, 1), np.ones(items)])
        for mean in (champion, challenger)
    ]
    return promotion_gate.compare_on_items(name, *tables, [str(place) for place in range(items)], percent, LIMITS)


def decide_simulated_case(case: str, seed: int, *, golden: int = 400, drifted: int = 120) -> promotion_gate.GateVerdict:
    """One verdict."""
    first, second, floors, checks, _ = CASES[case]
    one, other = part("golden", *first, golden, seed), part("slice", *second, drifted, seed + 10_000)
    return promotion_gate.decide(one, other, floors, checks, LIMITS)


def decisions(repetitions: int) -> FaultResult:
    """Each case so often; too few items must never be a yes or a no."""
    found = FaultResult(26, "gate decisions", "right in 95 % of seeded trials; too few items are insufficient")
    for case, (*_, wanted) in CASES.items():
        right = sum(decide_simulated_case(case, seed).verdict == wanted for seed in range(repetitions))
        low, high = wilson_interval(right, repetitions)
        found.figures[case] = f"{right / repetitions:.1%} ({low:.1%} to {high:.1%})"
        found.require(right >= 0.95 * repetitions, f"{case}: right in {right} of {repetitions}")
    few = {decide_simulated_case("better", seed, golden=400, drifted=20).verdict for seed in range(repetitions)}
    found.require(few == {"insufficient"}, f"a slice of 20 items: {sorted(few)}")
    return found

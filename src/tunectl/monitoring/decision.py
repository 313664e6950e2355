"""Combine the tests of the last windows into a verdict within one budget of false alarms.

Every evaluation tests each signal on the rows of the last 1, 3 and 9 windows. The budget (false alarms per evaluation) is divided
evenly among pools and by weights among signals, so by the union bound the probability that an evaluation has the verdict drift where
nothing changed is within it, whatever the dependence between signals, pools and evaluations: the long-run rate is, too.
docs/decisions/0013-pooled-evidence.md has the reasons and what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10

from msgspec.structs import replace

from tunectl.artifacts.records import DriftSignal, DriftVerdict, PooledTest

POOLS = (1, 3, 9)
"""Numbers of last windows that are tested together."""


@dataclass(frozen=True, slots=True)
class WindowDecision:
    """Verdict on one window and the reason for it."""

    verdict: DriftVerdict
    shifted: bool
    evidence: float
    pooled_windows: int
    reason: str


def pool_sizes(available: int) -> list[int]:
    """Return the numbers of windows to pool where ``available`` windows exist: 1, 3 and 9, each reduced to ``available``, without repeats."""
    return sorted({min(size, available) for size in POOLS})


def combine_pools(
    tests: Mapping[int, Sequence[DriftSignal]], weights: Mapping[str, float], budget: float
) -> dict[str, DriftSignal]:
    """Return the signals of a window by name, with their pooled tests and adjusted p-values.

    ``tests``: the tests by number of pooled windows; ``weights``: each signal's weight in the budget of false alarms;
    ``budget``: the adjusted p-value at or below which a signal has shifted.
    """
    tested = {item.name for tests_of_size in tests.values() for item in tests_of_size if item.p_value is not None}
    total = sum(weights[name] for name in tested)
    pools = sum(any(item.p_value is not None for item in tests_of_size) for tests_of_size in tests.values())
    by_name: dict[str, dict[int, DriftSignal]] = {}
    for size, result in sorted(tests.items()):
        for item in result:
            by_name.setdefault(item.name, {})[size] = item
    return {
        name: _combine_signal(each, pools * total / weights[name], budget) if name in tested else each[min(each)]
        for name, each in by_name.items()
    }


def _combine_signal(tests: Mapping[int, DriftSignal], factor: float, budget: float) -> DriftSignal:
    """Return one signal: its smallest p-value over the pools in which the effect is above the floor, else over all, times ``factor``."""
    tested = {size: test for size, test in tests.items() if test.p_value is not None}
    p_values = [item.p_value or 0.0 for item in tested.values() if _is_over_floor(item)]
    adjusted = min(1.0, factor * min(p_values or [item.p_value or 0.0 for item in tested.values()]))
    pooled = [
        PooledTest(size, item.n, item.p_value or 0.0, item.effect or 0.0) for size, item in tested.items() if size > 1
    ]
    smallest_pool = tests[min(tests)]
    return replace(
        smallest_pool, adjusted_p_value=adjusted, shifted=bool(p_values) and adjusted <= budget, pooled=pooled
    )


def _is_over_floor(signal: DriftSignal) -> bool:
    return signal.effect is not None and signal.effect_floor is not None and signal.effect > signal.effect_floor


def find_strongest_pool(signal: DriftSignal) -> int:
    """Return the number of pooled windows with which a signal's p-value is smallest."""
    tests = {each.windows: each.p_value for each in signal.pooled}
    if signal.p_value is not None:
        tests[1] = signal.p_value
    return min(tests, key=lambda size: (tests[size], size), default=1)


def window_evidence(signals: Mapping[str, DriftSignal], budget: float) -> float:
    """Return -log10 of the smallest adjusted p-value; a signal whose effect is below its floor counts as no evidence.

    ``budget`` is the adjusted p-value at or below which a signal has shifted.
    """
    counted = [
        signal.adjusted_p_value
        for signal in signals.values()
        if signal.adjusted_p_value is not None and (signal.shifted or signal.adjusted_p_value > budget)
    ]
    return round(max(0.0, -log10(min(counted, default=1.0))), 3)


def window_verdict(
    signals: Mapping[str, DriftSignal], *, budget: float, last_evidence: float = 0.0, missing: Sequence[str] = ()
) -> WindowDecision:
    """Return the verdict on a window: drift where a signal has shifted.

    ``budget`` is the adjusted p-value at or below which a signal has shifted. ``missing`` has reasons why prompts or answers could
    not be tested (no reference yet, no signal with enough rows): then a window without a shift is ``insufficient``, not ``ok``.
    ``last_evidence`` is the evidence of the window before, which is kept where nothing was tested.
    """
    tested = [signal for signal in signals.values() if signal.adjusted_p_value is not None]
    evidence = window_evidence(signals, budget) if tested else last_evidence
    shifted = sorted((item for item in tested if item.shifted), key=lambda item: item.adjusted_p_value or 0.0)
    if shifted:
        pool = find_strongest_pool(shifted[0])
        names = ", ".join(item.name for item in shifted)
        return WindowDecision("drift", True, evidence, pool, f"shifted {_over(pool)}: {names}; {_chance(evidence)}")
    if not tested or missing:
        silent = [
            f"{signal.name}: {signal.reason}" for signal in signals.values() if signal.p_value is None and signal.reason
        ]
        reasons = list(dict.fromkeys(missing or silent))  # what is missing as a whole is why each of them is silent
        return WindowDecision("insufficient", False, evidence, 1, "; ".join(reasons) or "no rows")
    silent = [signal.name for signal in signals.values() if signal.adjusted_p_value is None]
    quiet = f"none of {len(tested)} signals shifted, evidence {evidence:.1f} of {-log10(budget):.1f}"
    few = f"; too few rows for {', '.join(silent)}" if silent else ""
    return WindowDecision("ok", False, evidence, 1, quiet + few)


def _over(windows: int) -> str:
    return "in this window" if windows == 1 else f"over the last {windows} windows"


def _chance(evidence: float) -> str:
    return f"without a change once in {10**evidence:,.0f} evaluations"

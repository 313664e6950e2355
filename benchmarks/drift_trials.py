"""Sequences of windows of real texts, tested as the monitor tests them, until the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from drift_corpora import Pair

from tunectl.artifacts.records import DriftSignal
from tunectl.monitoring import decision, power_study, signals, two_sample_tests
from tunectl.monitoring.power_study import Rates, Shift
from tunectl.monitoring.signals import WEIGHTS, SignalColumns
from tunectl.monitoring.window_size import DetectionRule

DEALS = 199
"""Permutations of a test: beyond what they show, p-values come from the tail, as the monitor's do beyond its 1,999."""
BEFORE = 8
"""Unchanged windows before the change, which the largest pool has in it at first."""
PARTS = sum(weight for name, weight in WEIGHTS.items() if name.startswith("prompt") or name == "feedback")


def shift_of(pair: Pair, change: str) -> Shift:
    """What turns a window of ``own`` into a changed one."""
    foreign = range(len(pair.own.texts), len(pair.own.texts) + len(pair.other.texts))
    return {
        "nothing": power_study.no_change,
        "15 % foreign": power_study.inject_foreign("prompt", foreign, 0.15),
        "30 % foreign": power_study.inject_foreign("prompt", foreign, 0.30),
        "20 points more negative": power_study.shift_share("prompt", pair.own.negative, 0.20),
    }[change]


@dataclass
class Sequences:
    """What sequences of one cell gave."""

    rates: Rates = field(default_factory=Rates)
    alone: dict[str, int] = field(default_factory=dict)
    """By signal: first changed windows flagged at 5 %."""
    in_a_row: int = 0
    """Sequences in which each of the first three windows was significant after Holm: the rule of version 0.1."""


def run(
    pair: Pair, change: str, rows: int, trials: int, rule: DetectionRule, reference: int, begin: int = 0
) -> Sequences:
    """Draw ``trials`` sequences, from number ``begin`` on; the answers' part of the budget is left unused: they never change."""
    budget = rule.false_alarms * PARTS / sum(WEIGHTS.values())
    rule = replace(rule, permutations=DEALS, false_alarms=budget)
    sequences, shift = Sequences(), shift_of(pair, change)
    for trial in range(begin, begin + trials):
        random = np.random.default_rng([rows, trial])
        trial_data = _Trial(pair, rule, random.choice(len(pair.own.texts), reference), trial)
        history = [random.choice(len(pair.own.texts), rows) for _ in range(BEFORE)]
        delay, row = None, 0
        for window in range(1, 10):
            history = [*history, shift(random, "prompt", random.choice(len(pair.own.texts), rows))][-9:]
            if delay is None and trial_data.is_drift(history):
                delay = window
            if window <= 3:
                p_values = trial_data.p_values(history[-1])
                row += row == window - 1 and min(p_values.values()) * len(WEIGHTS) <= 0.05  # Holm's first step
            if window == 1:
                for name, p_value in p_values.items():
                    sequences.alone[name] = sequences.alone.get(name, 0) + (p_value <= 0.05)
            if window >= 3 and delay is not None:
                break
        sequences.rates.delays.append(delay)
        sequences.in_a_row += row == 3
    return sequences


class _Trial:
    """One reference of a trial; its effect floors are worked out for what would otherwise be a verdict."""

    def __init__(self, pair: Pair, rule: DetectionRule, places: np.ndarray, seed: int) -> None:
        self._pair, self._rule, self._seed = pair, rule, seed
        self._columns = signals.subset(pair.prompts, places)
        self._dealer = two_sample_tests.PermutationCache(rule.permutations, seed)
        self._floors: dict[str, float] = {}

    def is_drift(self, history: list[np.ndarray]) -> bool:
        """Whether the newest window's evaluation says drift."""
        sizes = decision.pool_sizes(len(history))
        tests: dict[int, list[DriftSignal]] = {}
        for size in sizes:  # a verdict stands whatever larger pools say, so those are not tested then
            tests[size] = self._test(signals.subset(self._pair.prompts, np.concatenate(history[-size:])))
            budget = self._rule.false_alarms * len(tests) / len(sizes)  # as if all pools were there
            shifted = [one for one in self._combine(tests, budget).values() if one.shifted]
            unknown = {one.name: self._columns[one.name] for one in shifted if one.name not in self._floors}
            self._floors |= signals.effect_floors(
                unknown, self._dealer, quantile=self._rule.quantile, minimum=self._rule.minimum, seed=self._seed
            )
            if shifted and any(one.shifted for one in self._combine(tests, budget).values()):
                return True
        return False

    def _combine(self, tests: dict[int, list[DriftSignal]], budget: float) -> dict[str, DriftSignal]:
        floored = {
            size: [replace_floor(one, self._floors.get(one.name, -np.inf)) for one in results]
            for size, results in tests.items()
        }
        return decision.combine_pools(floored, WEIGHTS, budget)

    def p_values(self, window: np.ndarray) -> dict[str, float]:
        """Of one window alone, by signal."""
        results = self._test(signals.subset(self._pair.prompts, window))
        return {one.name: one.p_value for one in results if one.p_value is not None}

    def _test(self, window: SignalColumns) -> list[DriftSignal]:
        return signals.run_all_tests(
            window, self._columns, {}, self._dealer, level=self._rule.level, minimum=self._rule.minimum
        )


def replace_floor(signal: DriftSignal, floor: float) -> DriftSignal:
    """The signal with another effect floor."""
    from msgspec.structs import replace as changed

    return changed(signal, effect_floor=floor)

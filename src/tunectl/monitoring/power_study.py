"""How often does it cry wolf, and what does it notice? Measured by drawing windows out of texts that are known to be alike.

Every trial draws a reference of its own: a rate over windows that share one reference is that reference's luck, good or bad.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from tunectl.artifacts.records import DriftSignal
from tunectl.monitoring import decision, two_sample_tests
from tunectl.monitoring import signals as monitoring_signals
from tunectl.monitoring.signals import SignalColumns
from tunectl.stats.proportion_ci import wilson_interval

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class DetectionRule:
    """How windows are decided on."""

    level: float
    """Of a signal alone, and of all signals of a window together (Holm)."""
    permutations: int
    quantile: float
    """Of reference-against-reference splits: the effect floor."""
    minimum: int
    """Fewest rows of a signal on either side."""
    required: int
    """Windows in a row that make drift."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something happened."""

    count: int
    trials: int

    @property
    def share(self) -> float:
        """0 to 1."""
        return self.count / self.trials

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval."""
        return wilson_interval(self.count, self.trials)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.share:.1%} ({low:.1%} to {high:.1%})"


@dataclass(frozen=True, slots=True)
class Rates:
    """What a series of trials gave."""

    alone: dict[str, Rate] = field(default_factory=dict)
    """By signal: flagged at its own level, and over its floor."""
    window: Rate = field(default_factory=lambda: Rate(0, 1))
    """Something moved after Holm, in one window."""
    verdict: Rate = field(default_factory=lambda: Rate(0, 1))
    """In so many windows in a row that the verdict was drift."""


Pool = Mapping[str, SignalColumns]
"""By side (prompt, answer): measured rows, of which references and windows are drawn."""
EXPECTED = 15
"""Level times permutations of a first look: 299 of them at 5 %."""
UNLIKELY = 3.0
"""Levels: a signal whose p-value of all permutations is within its level gets over so many of them there once in a billion."""
Shift = Callable[["Generator", str, "NDArray[Any]", "NDArray[Any]"], "NDArray[Any]"]
"""Turns the rows (numbers of rows of the pool) of a window of one side into those of a changed window; the last argument are
rows that neither the reference nor a window of this trial has."""


def no_change(_random: Generator, _side: str, window: NDArray[Any], _spare: NDArray[Any]) -> NDArray[Any]:
    """No change: the null."""
    return window


@dataclass(frozen=True, slots=True)
class Simulation:
    """Draws sequences of windows, each sequence with a reference of its own, and counts what is flagged."""

    pool: Pool
    own: Mapping[str, Sequence[int]]
    """By side: the rows of the pool that reference and unchanged windows are drawn from."""
    rule: DetectionRule
    reference: int
    """Rows of a reference."""
    rows: int
    """Rows of a window."""
    unlikely: float = UNLIKELY
    """A first look takes few permutations; a signal with p over so many levels there keeps that p-value, and only the others get
    them all: no figure changes, and most of the work is spared where nothing did. One level is enough for window and verdict,
    which need far smaller p-values of all signals together. 0: no first look."""

    def run(
        self,
        trials: int,
        seed: int,
        shift: Shift = no_change,
        *,
        sequences: bool = True,
        begin: int = 0,
        each: Callable[[], None] = lambda: None,
    ) -> Rates:
        """``trials`` sequences; the first window of each counts for the signals, all of them for the verdict.

        A sequence ends with its first window in which nothing moves: it can no longer become drift. Without ``sequences``
        only first windows are drawn. ``begin`` is the number of the first trial, for runs in parts; ``each`` is called after
        every trial.
        """
        import numpy as np

        alone: Counter[str] = Counter()
        told: Counter[str] = Counter()
        moved = drifted = 0
        for trial in range(begin, begin + trials):
            random = np.random.default_rng([seed, trial])
            reference, windows = self._draw_reference_and_windows(random, shift, self.rule.required if sequences else 1)
            drawn = _Reference(
                self.pool, reference, self.rule, int(random.integers(2**31)), self._screen, self.unlikely
            )
            first = drawn.signals(windows[0])
            told.update(list(first))
            alone.update(name for name, one in first.items() if _alone(one, self.rule.level))
            run = 0
            for place, window in enumerate(windows):
                found = first if place == 0 else drawn.signals(window)
                if not any(one.shifted for one in found.values()):
                    break
                run += 1
            moved += run > 0
            drifted += run >= self.rule.required
            each()
        return Rates(
            {name: Rate(alone[name], count) for name, count in told.items()}, Rate(moved, trials), Rate(drifted, trials)
        )

    @property
    def _screen(self) -> int:
        few = round(EXPECTED / self.rule.level) - 1
        return few if self.unlikely and few < self.rule.permutations else 0

    def _draw_reference_and_windows(self, random: Generator, shift: Shift, count: int) -> tuple[_Places, list[_Places]]:
        """A reference and windows that share no row with it or with each other."""
        reference: _Places = {}
        windows: list[_Places] = [{} for _ in range(count)]
        for side, rows in self.own.items():
            order = random.permutation(rows)
            reference[side] = order[: self.reference]
            spare = order[self.reference + count * self.rows :]
            for place, window in enumerate(windows):
                start = self.reference + place * self.rows
                window[side] = shift(random, side, order[start : start + self.rows], spare)
        return reference, windows


_Places = dict[str, "NDArray[Any]"]


class _Reference:
    """One reference of a trial; floors are only worked out for what would otherwise be flagged."""

    def __init__(
        self, pool: Pool, places: _Places, rule: DetectionRule, seed: int, screen: int, unlikely: float
    ) -> None:
        self._pool, self._rule, self._seed = pool, rule, seed
        self._screen, self._limit = (
            two_sample_tests.PermutationCache(screen, seed) if screen else None,
            unlikely * rule.level,
        )
        self._columns = {side: monitoring_signals.subset(pool[side], rows) for side, rows in places.items()}
        self._dealer = two_sample_tests.PermutationCache(rule.permutations, seed)
        self._floors: dict[str, float] = {}

    def signals(self, window: _Places) -> dict[str, DriftSignal]:
        """The signals of a window, judged."""
        found: list[DriftSignal] = []
        for side, places in window.items():
            found += self._side(side, monitoring_signals.subset(self._pool[side], places))
        return decision.adjust_p_values(
            [replace(one, effect_floor=self._floors.get(one.name, 0.0)) for one in found], self._rule.level
        )

    def _side(self, side: str, window: SignalColumns) -> list[DriftSignal]:
        rule, reference = self._rule, self._columns[side]
        found = self._run_signal_tests(window, reference, self._screen or self._dealer)
        if self._screen:
            near = {name: window[name] for name in _within(found, self._limit)}
            found = [
                *(one for one in found if one.name not in near),
                *self._run_signal_tests(near, reference, self._dealer),
            ]
        wanted = {name: reference[name] for name in _within(found, rule.level) - self._floors.keys()}
        self._floors |= monitoring_signals.effect_floors(
            wanted, self._dealer, quantile=rule.quantile, minimum=rule.minimum, seed=self._seed
        )
        return found

    def _run_signal_tests(
        self, window: SignalColumns, reference: SignalColumns, dealer: two_sample_tests.PermutationCache
    ) -> list[DriftSignal]:
        return monitoring_signals.test_all(
            window, reference, {}, dealer, level=self._rule.level, minimum=self._rule.minimum
        )


def _within(found: Sequence[DriftSignal], limit: float) -> set[str]:
    return {one.name for one in found if one.p_value is not None and one.p_value <= limit}


def _alone(one: DriftSignal, level: float) -> bool:
    if one.p_value is None or one.effect is None or one.effect_floor is None:
        return False
    return one.p_value <= level and one.effect > one.effect_floor


def inject_foreign(side: str, foreign: Sequence[int], share: float) -> Shift:
    """``share`` of a window is replaced by ``foreign`` rows of the pool."""

    def shift(random: Generator, where: str, window: NDArray[Any], _spare: NDArray[Any]) -> NDArray[Any]:
        if where != side:
            return window
        changed = window.copy()
        count = round(share * len(window))
        changed[random.choice(len(window), count, replace=False)] = random.choice(foreign, count, replace=False)
        return changed

    return shift


def shift_share(side: str, marked: Sequence[int], points: float) -> Shift:
    """The share of ``marked`` rows of a window grows by ``points`` (0.2: 20 points), as far as there are others to replace."""

    def shift(random: Generator, where: str, window: NDArray[Any], spare: NDArray[Any]) -> NDArray[Any]:
        import numpy as np

        if where != side:
            return window
        changed = window.copy()
        others, more = np.flatnonzero(~np.isin(window, marked)), spare[np.isin(spare, marked)]
        count = min(round(points * len(window)), len(others), len(more))
        changed[random.choice(others, count, replace=False)] = random.choice(more, count, replace=False)
        return changed

    return shift

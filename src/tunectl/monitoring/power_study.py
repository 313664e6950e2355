"""Measure the rate of false alarms and the delay of detection, with windows drawn from texts of one distribution.

Reference and windows are drawn with replacement from the same rows, so that there are always enough windows and they differ from the
reference by chance only. Every sequence draws its own reference, unless one is shared on purpose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunectl.monitoring.decision import POOLS, pool_sizes
from tunectl.monitoring.frozen_tests import FrozenSignal, freeze
from tunectl.monitoring.signals import WEIGHTS, SignalColumns
from tunectl.monitoring.window_size import DetectionRule
from tunectl.stats.proportion_ci import wilson_interval

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Rate:
    """Number of events (``count``) in a total of repetitions."""

    count: int
    total: int

    @property
    def share(self) -> float:
        """Rate as a share from 0 to 1."""
        return self.count / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end of Wilson's 95 % interval of the share."""
        return wilson_interval(self.count, self.total)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.share:.1%} ({low:.1%} to {high:.1%})"


@dataclass(frozen=True, slots=True)
class Rates:
    """Results of simulated sequences of windows: rate of each signal alone, and the delay of the verdict drift."""

    alone: dict[str, Rate] = field(default_factory=dict)
    """Rate of first windows flagged at the signal's own level, by signal."""
    delays: list[int | None] = field(default_factory=list)
    """Number of the first window with the verdict drift of each sequence, from one; None where there was none."""

    def by_window(self, count: int) -> Rate:
        """Return how many sequences had the verdict drift in one of their first ``count`` windows."""
        return Rate(sum(each is not None and each <= count for each in self.delays), len(self.delays))

    @property
    def median_delay(self) -> int | None:
        """Number of windows after which half of the sequences have the verdict drift; None where fewer than half ever have."""
        ordered = sorted(each for each in self.delays if each is not None)
        middle = (len(self.delays) - 1) // 2
        return ordered[middle] if middle < len(ordered) else None


Pool = Mapping[str, SignalColumns]
"""Measured rows by side (prompt, answer), from which references and windows are drawn."""
Shift = Callable[["Generator", str, "NDArray[Any]"], "NDArray[Any]"]
"""Converts the rows (indices into the pool) of a window of one side to those of a changed window."""
_Sums = list[tuple[Any, int]]


def no_change(_random: Generator, _side: str, window: NDArray[Any]) -> NDArray[Any]:
    """Return the rows ``window`` as they are: the null hypothesis, as a ``Shift``."""
    return window


class Simulation:
    """Draws sequences of windows from measured texts and evaluates each as the monitor does, with ``frozen_tests``.

    Valid for changes made of the pool's own rows. Rows unlike all others get too small p-values here, because the axes of these tests are
    fitted without them; benchmarks/drift_trials.py measures such changes with the monitor's own tests.
    """

    def __init__(
        self,
        pool: Pool,
        own: Mapping[str, Sequence[int]],
        rule: DetectionRule,
        reference: int,
        rows: int,
        seed: int = 1,
        shares: Mapping[str, float] | None = None,
    ) -> None:
        """``own``: rows of the pool by side, from which reference and unchanged windows are drawn.

        ``shares``: share of a window's rows that have a value, by signal, where not all have; the reference is as the pool is.
        """
        self._shares = dict(shares or {})
        self.rule, self.reference, self.rows = rule, reference, rows
        self._own = own
        self._signals: list[tuple[str, FrozenSignal]] = [
            (side, signal) for side, columns in pool.items() for signal in freeze(columns, own[side], seed)
        ]

    def run(
        self,
        repetitions: int,
        seed: int,
        shift: Shift = no_change,
        *,
        windows: int = max(POOLS),
        begin: int = 0,
        each: Callable[[], None] = lambda: None,
    ) -> Rates:
        """Return the rates over ``repetitions`` sequences: eight unchanged windows, then up to ``windows`` windows changed by ``shift``.

        ``begin`` is the number of the first repetition, for runs in several calls; ``each`` is called after every repetition.
        """
        import numpy as np

        alone, tested = Counter[str](), Counter[str]()
        delays: list[int | None] = []
        for repetition in range(begin, begin + repetitions):
            random = np.random.default_rng([seed, repetition])
            reference = self._draw(random, self.reference)
            history = [self._draw_window(random) for _ in range(max(POOLS) - 1)]
            delays.append(None)
            for window in range(1, windows + 1):
                history = [*history, self._draw_window(random, shift)][-max(POOLS) :]
                if window == 1:
                    p_values = self._p_values(history[-1], reference)
                    tested.update(list(p_values))
                    alone.update(name for name, p_value in p_values.items() if p_value <= self.rule.level)
                if self._evaluate(history, reference) <= self.rule.false_alarms:
                    delays[-1] = window
                    break
            each()
        return Rates({name: Rate(alone[name], count) for name, count in tested.items()}, delays)

    def count_false_verdicts(self, evaluations: int, seed: int) -> Iterator[bool]:
        """Yield whether each of ``evaluations`` consecutive windows without a change, against one reference, gets the (false) verdict drift."""
        import numpy as np

        random = np.random.default_rng(seed)
        reference = self._draw(random, self.reference)
        history: list[_Sums] = []
        for _ in range(evaluations):
            history = [*history, self._draw_window(random)][-max(POOLS) :]
            yield self._evaluate(history, reference) <= self.rule.false_alarms

    def count_false_sequences(self, sequences: int, seed: int) -> Iterator[bool]:
        """Yield whether the ninth window of each of ``sequences`` sequences without a change, against one reference, gets the (false) verdict drift."""
        import numpy as np

        random = np.random.default_rng(seed)
        reference = self._draw(random, self.reference)
        for _ in range(sequences):
            history = [self._draw_window(random) for _ in range(max(POOLS))]
            yield self._evaluate(history, reference) <= self.rule.false_alarms

    def _draw(self, random: Generator, count: int) -> _Sums:
        import numpy as np

        rows = {side: random.choice(np.asarray(own), count) for side, own in self._own.items()}
        return [signal.sum_rows(rows[side]) for side, signal in self._signals]

    def _draw_window(self, random: Generator, shift: Shift = no_change) -> _Sums:
        import numpy as np

        rows = {side: shift(random, side, random.choice(np.asarray(own), self.rows)) for side, own in self._own.items()}
        result = []
        for side, signal in self._signals:
            counted = round(self._shares.get(signal.spec.name, 1.0) * self.rows)
            result.append(signal.sum_rows(rows[side][:counted]))  # rows are drawn, so the first are as good as any
        return result

    def _p_values(self, window: _Sums, reference: _Sums) -> dict[str, float]:
        result = {}
        for (_, signal), window_values, reference_values in zip(self._signals, window, reference, strict=True):
            if min(window_values[1], reference_values[1]) >= self.rule.minimum:
                result[signal.spec.name] = signal.p_value(window_values, reference_values)
        return result

    def _evaluate(self, history: Sequence[_Sums], reference: _Sums) -> float:
        """Return the smallest adjusted p-value, as in ``decision.combine_pools``."""
        sizes = pool_sizes(len(history))
        smallest = 1.0
        for size in sizes:
            pooled = [
                (sum(part[0] for part in parts), sum(part[1] for part in parts))
                for parts in zip(*history[-size:], strict=True)
            ]
            p_values = self._p_values(pooled, reference)
            total = sum(WEIGHTS[name] for name in p_values)
            for name, p_value in p_values.items():
                smallest = min(smallest, p_value * len(sizes) * total / WEIGHTS[name])
        return smallest


def inject_foreign(side: str, foreign: Sequence[int], share: float) -> Shift:
    """Return a change that replaces the ``share`` (0 to 1) of a window by ``foreign`` rows of the pool; ``side``: prompt or answer."""

    def shift(random: Generator, where: str, window: NDArray[Any]) -> NDArray[Any]:
        import numpy as np

        if where != side:
            return window
        changed = window.copy()
        count = round(share * len(window))
        changed[random.choice(len(window), count, replace=False)] = random.choice(np.asarray(foreign), count)
        return changed

    return shift


def shift_share(side: str, marked: Sequence[int], points: float) -> Shift:
    """Return a change that raises the share of ``marked`` rows in a window by ``points`` (0.2: 20 percentage points), at most to 1."""

    def shift(random: Generator, where: str, window: NDArray[Any]) -> NDArray[Any]:
        import numpy as np

        if where != side:
            return window
        changed = window.copy()
        others = np.flatnonzero(~np.isin(window, marked))
        count = min(round(points * len(window)), len(others))
        changed[random.choice(others, count, replace=False)] = random.choice(np.asarray(marked), count)
        return changed

    return shift

"""Calibrate the monitor on this project's own references: false alarms and power.

Windows, and a reference of the same size, are drawn from the reference itself, with replacement (``power_study``). Changes are
made from its own rows: more of one topic, another tone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from tunectl.monitoring.power_study import Rate, Rates, Shift, Simulation, no_change
from tunectl.monitoring.signals import SignalColumns, SignalSide
from tunectl.monitoring.window_size import DetectionRule, min_visible_effect, power

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

NEAR = 0.2
"""Share of a reference that forms a topic: the rows nearest to a random one."""
LOGPROB = "mean_logprob"
"""The signal whose rows depend on ``inference_log.logprob_share``."""
NOTHING = "nothing"
"""Name of no change: its detections are false alarms."""
CHANGES: tuple[tuple[str, str, float], ...] = (
    (NOTHING, "", 0.0),
    ("topic_15", "topic", 0.15),
    ("topic_30", "topic", 0.30),
    ("tone_20", "tone", 0.20),
    ("tone_40", "tone", 0.40),
)
"""Name (a label of the metrics), which rows are drawn more often, and how much of the window changes."""


class CalibrationRow(Struct, frozen=True):
    """Simulated rates of one change in prompts or answers: false alarms where nothing changed, power and delay elsewhere."""

    change: str
    side: str
    rows: int
    """Rows of a window."""
    reference: int
    """Rows of a reference in the simulation."""
    repetitions: int = field(name="trials")
    """Number of simulated sequences."""
    alone: dict[str, float]
    """Share of windows flagged at the signal's own level, by signal."""
    third: tuple[float, float, float]
    """Share of sequences with the verdict drift by the third window after the change, with the ends of its 95 % interval."""
    ninth: tuple[float, float, float]
    """Share of sequences with the verdict drift by the ninth window after the change, with its interval. Without a change: in at least one of nine evaluations."""
    delay_rows: int | None
    """Rows until half of the sequences have the verdict drift; None where fewer have by the ninth window."""
    rows_needed: int | None
    """Rows of a window with which half have it by the third window; None where four times the rows are too few."""


class LogprobPower(Struct, frozen=True):
    """Computed power of the signal ``mean_logprob`` where only a share of the answers has log-probabilities."""

    share: float
    """``inference_log.logprob_share``."""
    rows: int
    """Rows of a window with a log-probability."""
    reference: int
    """Rows of the reference with a log-probability."""
    min_rows: int
    """Rows of either from which the signal is tested (``monitor.window.min_rows``)."""
    effect: float
    """``monitor.rule.min_effect``, in standard deviations."""
    third: float | None
    """Probability to detect that change by the third window; None where the rows of three windows are too few to be tested."""
    ninth: float | None
    ninth_of_all: float | None
    """Probability to detect that change by the ninth window if every answer had log-probabilities."""
    min_effect: float | None
    """Smallest change that is detected by the ninth window with a probability of 80 %."""


class Calibration(Struct, frozen=True):
    """Content of the JSON that ``tunectl monitor calibrate`` writes: false alarms and power of the monitor on this project."""

    at: str
    """Time of the calibration, UTC, ISO 8601."""
    release: str
    references: dict[str, str]
    """Reference of each side."""
    embedder: str
    figures: list[CalibrationRow]
    logprob: LogprobPower | None = None
    """None where the signal is switched off, or answers have no reference."""


def min_reference_rows(rule: DetectionRule) -> int:
    """Return the fewest rows of a reference that ``calibrate`` simulates: three times ``rule.minimum``."""
    return 3 * rule.minimum


def measure_logprob_power(
    columns: SignalColumns | None, rule: DetectionRule, rows: int, share: float
) -> LogprobPower | None:
    """Return the power of ``mean_logprob`` where a ``share`` (0 to 1) of a window's ``rows`` rows have a value; None without a reference.

    ``columns`` are the measured signals of the reference's answers.
    """
    if columns is None or LOGPROB not in columns:
        return None
    counted, reference = round(rows * share), len(columns[LOGPROB])

    def chance(counted_rows: int) -> float | None:
        enough = min(counted_rows, reference) >= rule.minimum
        return round(power(rule, rule.min_effect, counted_rows, reference), 4) if enough else None

    ninth = chance(9 * counted)
    smallest = None if ninth is None else round(min_visible_effect(rule, 9 * counted, reference), 4)
    return LogprobPower(
        share,
        counted,
        reference,
        rule.minimum,
        rule.min_effect,
        chance(3 * counted),
        ninth,
        chance(9 * rows),
        smallest,
    )


def calibrate(
    pools: Mapping[SignalSide, SignalColumns],
    sizes: Mapping[SignalSide, int],
    rule: DetectionRule,
    rows: int,
    repetitions: int,
    seed: int,
    *,
    logprob_share: float = 1.0,
    each: Callable[[], None] = lambda: None,
) -> Iterator[CalibrationRow]:
    """Yield the simulated false alarms and power of each change in prompts or answers, from ``repetitions`` sequences of windows.

    ``sizes``: rows of the reference by side; a side with fewer than ``min_reference_rows`` is left out. ``rows``: rows of a window.
    ``each``: called after every sequence.
    ``logprob_share``: share of a window's rows, 0 to 1, that have a log-probability.
    """
    for side, columns in pools.items():
        if sizes[side] < min_reference_rows(rule):
            continue
        benches = _Benches(side, columns, sizes[side], rule, seed, {LOGPROB: logprob_share})
        for index, (change, kind, amount) in enumerate(CHANGES):
            shift = _SHIFTS[kind](side, columns, amount)
            if shift is not None:
                result = benches.at(rows).run(repetitions, seed + index, shift, each=each)
                needed = None if change == NOTHING else benches.find_rows(rows, repetitions, seed + index, shift)
                yield _to_row(change, side, benches.at(rows), result, needed)


class _Benches:
    """Simulations of one side, by rows of a window."""

    def __init__(
        self,
        side: str,
        columns: SignalColumns,
        size: int,
        rule: DetectionRule,
        seed: int,
        shares: Mapping[str, float],
    ) -> None:
        self._bench = Simulation({side: columns}, {side: range(size)}, rule, size, rule.minimum, seed, shares)

    def at(self, rows: int) -> Simulation:
        self._bench.rows = rows
        return self._bench

    def find_rows(self, rows: int, repetitions: int, seed: int, shift: Shift) -> int | None:
        """Return the fewest rows, in steps of a quarter, with which half of the sequences have the verdict drift by the third window."""
        few = max(20, repetitions // 4)
        largest, smallest = 4 * rows, self._bench.rule.minimum
        size: float = smallest
        while size <= largest:
            result = self.at(round(size)).run(few, seed, shift, windows=3)
            if result.by_window(3).share >= 0.5:
                return round(size)
            size *= 1.25
        return None


def _to_row(change: str, side: str, bench: Simulation, rates: Rates, needed: int | None) -> CalibrationRow:
    delay = rates.median_delay
    return CalibrationRow(
        change,
        side,
        bench.rows,
        bench.reference,
        len(rates.delays),
        {name: round(rate.share, 4) for name, rate in rates.alone.items()},
        _ends(rates.by_window(3)),
        _ends(rates.by_window(9)),
        None if delay is None else delay * bench.rows,
        needed,
    )


def _ends(rate: Rate) -> tuple[float, float, float]:
    low, high = rate.interval
    return round(rate.share, 5), round(low, 5), round(high, 5)


def _shift_topic(side: SignalSide, columns: SignalColumns, amount: float) -> Shift | None:
    """Return a change with more rows that are near one random row, by their embeddings."""
    column = columns.get(f"{side}_text")
    if column is None or not len(column):
        return None
    vectors, rows = column.parts[0], column.rows
    sequence: list[Any] = [None, None]  # its generator, and the rows of its topic

    def shift(random: Generator, _where: str, window: NDArray[Any]) -> NDArray[Any]:
        import numpy as np

        if sequence[0] is not random:  # a sequence has a generator of its own, and one topic
            near = vectors @ vectors[random.integers(len(vectors))]
            sequence[:] = random, rows[np.argsort(-near)[: max(1, int(NEAR * len(rows)))]]
        return _more(random, window, sequence[1], amount)

    return shift


def _shift_tone(side: SignalSide, columns: SignalColumns, amount: float) -> Shift | None:
    """Return a change with more rows whose words are unfriendly."""
    column = columns.get(f"{side}_tone")
    if column is None or not len(column):
        return None
    marked = column.rows[column.parts[0] < 0]
    if len(marked) < 10:
        return None

    def shift(random: Generator, _where: str, window: NDArray[Any]) -> NDArray[Any]:
        return _more(random, window, marked, amount)

    return shift


def _more(random: Generator, window: NDArray[Any], marked: NDArray[Any], amount: float) -> NDArray[Any]:
    """Return ``window`` with ``amount`` of its rows replaced by marked ones."""
    import numpy as np

    changed = window.copy()
    others = np.flatnonzero(~np.isin(window, marked))
    count = min(round(amount * len(window)), len(others))
    if count:
        changed[random.choice(others, count, replace=False)] = random.choice(marked, count)
    return changed


def _get_no_change(_side: SignalSide, _columns: SignalColumns, _amount: float) -> Shift | None:
    return no_change


_SHIFTS: dict[str, Callable[[SignalSide, SignalColumns, float], Shift | None]] = {
    "": _get_no_change,
    "topic": _shift_topic,
    "tone": _shift_tone,
}

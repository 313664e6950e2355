"""What this project's own references make of it: false alarms and power, measured on them.

Windows are drawn out of the reference itself, and the rest of it is the reference of the trial, so the figures are a little
worse than those of the whole reference. Changes are made of its own rows: more of one topic, another tone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from tunectl.monitoring.power_study import DetectionRule, Rate, Rates, Shift, Simulation, no_change
from tunectl.monitoring.signals import SignalColumns, SignalSide

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

NEAR = 0.2
"""Share of a reference that makes up a topic: the rows nearest to one that is drawn."""
NOTHING = "nothing"
"""The change that is none: its share are false alarms."""
CHANGES: tuple[tuple[str, str, float], ...] = (
    (NOTHING, "", 0.0),
    ("topic_15", "topic", 0.15),
    ("topic_30", "topic", 0.30),
    ("tone_20", "tone", 0.20),
    ("tone_40", "tone", 0.40),
)
"""Name (a label of the metrics), what is drawn more often, and by how much of the window."""


class CalibrationRow(Struct, frozen=True):
    """One line of the table."""

    change: str
    side: str
    rows: int
    """Of a window."""
    reference: int
    """Rows of a reference in the trials."""
    trials: int
    alone: dict[str, float]
    """By signal: share of windows flagged at the signal's own level."""
    window: tuple[float, float, float]
    """Share of windows in which something moved after Holm, with the ends of its 95 % interval."""
    verdict: tuple[float, float, float] | None
    """Share of sequences that ended in drift; None where the reference has too few rows to draw that many windows."""


class Calibration(Struct, frozen=True):
    """What ``tunectl monitor calibrate`` leaves."""

    at: str
    """UTC, ISO 8601."""
    release: str
    references: dict[str, str]
    """By side: with what windows are compared."""
    embedder: str
    figures: list[CalibrationRow]


def min_reference_rows(rule: DetectionRule) -> int:
    """Rows of the smallest reference that can be measured: one, a window, and what changed windows are drawn from."""
    return 3 * rule.minimum


def calibrate(
    pools: Mapping[SignalSide, SignalColumns],
    sizes: Mapping[SignalSide, int],
    rule: DetectionRule,
    rows: int,
    trials: int,
    seed: int,
    *,
    each: Callable[[], None] = lambda: None,
) -> Iterator[CalibrationRow]:
    """One figure a side and change, each of ``trials`` trials after which ``each`` is called.

    ``sizes``: rows of each reference; one with fewer than four windows' rows uses smaller ones, one with fewer than ``min_reference_rows`` has
    no figure.
    """
    for side, columns in pools.items():
        window = min(rows, max(rule.minimum, sizes[side] // 4))
        whole = sizes[side] >= (rule.required + 3) * window
        drawn = (rule.required if whole else 1) + 1  # the last one is left over, for changes to draw from
        reference = sizes[side] - drawn * window
        if reference < rule.minimum:
            continue
        bench = Simulation({side: columns}, {side: range(sizes[side])}, rule, reference, window)
        for place, (change, kind, amount) in enumerate(CHANGES):
            shift = _SHIFTS[kind](side, columns, amount)
            if shift is not None:
                found = bench.run(trials, seed + place, shift, sequences=whole, each=each)
                yield _figure(change, side, bench, found, trials, whole=whole)


def _figure(change: str, side: str, bench: Simulation, found: Rates, trials: int, *, whole: bool) -> CalibrationRow:
    alone = {name: round(rate.share, 4) for name, rate in found.alone.items()}
    return CalibrationRow(
        change,
        side,
        bench.rows,
        bench.reference,
        trials,
        alone,
        _ends(found.window),
        _ends(found.verdict) if whole else None,
    )


def _ends(rate: Rate) -> tuple[float, float, float]:
    low, high = rate.interval
    return round(rate.share, 5), round(low, 5), round(high, 5)


def _topic(side: SignalSide, columns: SignalColumns, amount: float) -> Shift | None:
    """More rows that are near one drawn row, by their embeddings."""
    column = columns.get(f"{side}_text")
    if column is None or not len(column):
        return None
    vectors, rows = column.parts[0], column.rows

    def shift(random: Generator, _where: str, window: NDArray[Any], spare: NDArray[Any]) -> NDArray[Any]:
        import numpy as np

        near = vectors @ vectors[random.integers(len(vectors))]
        marked = rows[np.argsort(-near)[: max(1, int(NEAR * len(rows)))]]
        return _more(random, window, spare, marked, amount)

    return shift


def _tone(side: SignalSide, columns: SignalColumns, amount: float) -> Shift | None:
    """More rows whose words are unfriendly."""
    column = columns.get(f"{side}_tone")
    if column is None or not len(column):
        return None
    marked = column.rows[column.parts[0] < 0]
    if len(marked) < 10:
        return None

    def shift(random: Generator, _where: str, window: NDArray[Any], spare: NDArray[Any]) -> NDArray[Any]:
        return _more(random, window, spare, marked, amount)

    return shift


def _more(
    random: Generator, window: NDArray[Any], spare: NDArray[Any], marked: NDArray[Any], amount: float
) -> NDArray[Any]:
    """``window`` with ``amount`` of its rows replaced by marked ones; the same one may come twice where there are few."""
    import numpy as np

    changed = window.copy()
    others = np.flatnonzero(~np.isin(window, marked))
    more = spare[np.isin(spare, marked)]
    count = min(round(amount * len(window)), len(others))
    if not len(more) or not count:
        return changed
    changed[random.choice(others, count, replace=False)] = random.choice(more, count, replace=count > len(more))
    return changed


def _nothing(_side: SignalSide, _columns: SignalColumns, _amount: float) -> Shift | None:
    return no_change


_SHIFTS: dict[str, Callable[[SignalSide, SignalColumns, float], Shift | None]] = {
    "": _nothing,
    "topic": _topic,
    "tone": _tone,
}

"""Fast versions of the tests of all signals, for simulations of ten thousand windows.

What a test computes from window and reference together (axes, covariance, the regression of tone, the spread of numbers) is
computed once here, from all rows of a pool, and p-values come from the tails alone. For windows drawn from that pool both agree
closely (``tests/unit/monitoring/test_frozen_tests.py``); a real window is never tested this way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from math import sqrt
from typing import TYPE_CHECKING, Any

from tunectl.monitoring import features, tail_probabilities, text_kernel
from tunectl.monitoring.signals import SIGNALS, SignalColumns, SignalSpec, SignalValues

if TYPE_CHECKING:
    from numpy.typing import NDArray

REGRESSION_ROWS = 1500
"""Rows to which the regression of tone is fitted: about as many as a window and a reference have."""
NEAR = 30
"""Rows of a pool per neighbor of a text: about as in a test of a window with a reference of a thousand rows."""
DRAWS = 300_000
"""Draws of a null distribution that has no formula."""
Tail = Callable[["NDArray[Any]", int, int, "NDArray[Any]"], float]
"""Returns the p-value, from the difference of the mean features, the rows of window and reference, and the sum of the features of both."""


@dataclass(frozen=True, slots=True)
class FrozenSignal:
    """One signal prepared for simulations: functions that sum the features of rows of a pool, and give the p-value of two such sums."""

    spec: SignalSpec
    indices: NDArray[Any]
    """For each row of the pool its index among those with a value, or -1."""
    add_up: Callable[[NDArray[Any]], NDArray[Any]]
    """Returns the sum of the features of rows with a value, double precision."""
    tail: Tail

    def sum_rows(self, rows: NDArray[Any]) -> tuple[NDArray[Any], int]:
        """Return the sum of the features (d,) of these rows of the pool, and how many of them have a value."""
        indices = self.indices[rows]
        indices = indices[indices >= 0]
        return self.add_up(indices), len(indices)

    def p_value(self, window: tuple[NDArray[Any], int], reference: tuple[NDArray[Any], int]) -> float:
        """Return the p-value of a window against a reference, each given as ``sum_rows`` returns it."""
        (first, n), (second, m) = window, reference
        return self.tail(first / n - second / m, n, m, first + second)


def freeze(columns: SignalColumns, own: Sequence[int], seed: int) -> list[FrozenSignal]:
    """Prepare the signals of a pool of prompts or answers for simulations; scales and axes are fitted to the rows ``own`` (indices)."""
    import numpy as np

    size = 1 + max((int(each.rows.max()) for each in columns.values() if len(each)), default=0)
    result = []
    for spec in SIGNALS:
        column = columns.get(spec.name)
        if column is None or not len(column):
            continue
        indices = np.full(max(size, 1 + max(own, default=0)), -1)
        indices[column.rows] = np.arange(len(column))
        learned = indices[np.asarray(own)]
        learned = learned[learned >= 0]
        if len(learned) > 1:
            values, tail = _FREEZERS[spec.kind](column, learned, seed)
            add_up = values if callable(values) else partial(_sum_rows, np.asarray(values, dtype=np.float32))
            result.append(FrozenSignal(spec, indices, add_up, tail))
    return result


def _sum_rows(values: NDArray[Any], indices: NDArray[Any]) -> NDArray[Any]:
    result: NDArray[Any] = values[indices].sum(axis=0, dtype="float64")
    return result


def _freeze_text(
    column: SignalValues, learned: NDArray[Any], seed: int
) -> tuple[Callable[[NDArray[Any]], NDArray[Any]], Tail]:
    """Freeze a text signal: neighbors are searched in the whole pool, as many for its size as in a test.

    Sums count how often each row was drawn, the edges that reach each row from them, and their axes.
    """
    import numpy as np

    values = np.concatenate(column.parts, axis=1)
    centered = np.asarray(values - values[learned].mean(axis=0), dtype=np.float32)
    axes = text_kernel.weigh_axes(centered, centered[learned])
    if axes is None:
        return lambda _indices: np.zeros(1), lambda *_values: 1.0
    graph = text_kernel.join_neighbors(centered, max(1, len(learned) // NEAR), seed, same=1.0)
    edges = graph + graph.T
    inside = edges[learned][:, learned]
    scale = text_kernel.GRAPH / text_kernel.norm_of_centered(inside)
    null = text_kernel.null_of(inside, axes[learned], scale)
    rows = len(values)

    def tail(difference: NDArray[Any], n: int, m: int, _both: NDArray[Any]) -> float:
        counts, reached, contrast = difference[:rows], difference[rows : 2 * rows], difference[2 * rows :]
        form = float(contrast @ contrast) + scale * float(counts @ reached)
        return null.tail((form / (1 / n + 1 / m) - null.mean) / null.spread, n, m)

    def add_up(indices: NDArray[Any]) -> NDArray[Any]:
        counts = np.bincount(indices, minlength=rows).astype(np.float32)
        return np.concatenate([counts, edges @ counts, axes[indices].sum(axis=0)], dtype=np.float64)

    return add_up, tail


def _freeze_tone(column: SignalValues, learned: NDArray[Any], seed: int) -> tuple[NDArray[Any], Tail]:
    import numpy as np
    from scipy.special import ndtr

    taught = np.random.default_rng(seed).permutation(learned)[:REGRESSION_ROWS]
    scores = features.smooth_by_taught_rows(column.parts[0], column.parts[1], taught)
    spread = float(scores[learned].std()) or 1.0

    def tail(difference: NDArray[Any], n: int, m: int, _both: NDArray[Any]) -> float:
        return float(2 * ndtr(-abs(difference[0]) / spread / sqrt(1 / n + 1 / m)))

    return scores[:, None], tail


def _freeze_share(column: SignalValues, _learned: NDArray[Any], _seed: int) -> tuple[NDArray[Any], Tail]:
    def tail(difference: NDArray[Any], n: int, m: int, both: NDArray[Any]) -> float:
        return tail_probabilities.share_difference_tail(round(float(both[0])), n, m, abs(float(difference[0])))

    return column.parts[0][:, None], tail


def _freeze_category(column: SignalValues, learned: NDArray[Any], seed: int) -> tuple[NDArray[Any], Tail]:
    import numpy as np

    codes = np.unique(column.parts[0], return_inverse=True)[1]
    members = np.eye(int(codes.max()) + 1, dtype=np.float32)[codes]
    shares = members[learned].mean(axis=0)

    @lru_cache(maxsize=64)
    def null(n: int, m: int) -> NDArray[Any]:
        total = np.maximum(np.round(shares * (n + m)), 0).astype(np.int64)
        total[total.argmax()] += n + m - total.sum()
        samples = np.random.default_rng([seed, n, m]).multivariate_hypergeometric(total, n, DRAWS, method="marginals")
        return np.sort(np.abs(samples / n - (total - samples) / m).sum(axis=1))

    def tail(difference: NDArray[Any], n: int, m: int, _both: NDArray[Any]) -> float:
        return _share_beyond(null(n, m), float(np.abs(difference).sum()))

    return members, tail


def _freeze_number(column: SignalValues, learned: NDArray[Any], seed: int) -> tuple[NDArray[Any], Tail]:
    import numpy as np

    edges, widths, levels = tail_probabilities.follow_ranks(np.sort(column.parts[0][learned]))
    if not len(widths):
        return column.parts[0][:, None] * 0, lambda *_values: 1.0
    null = np.sort(tail_probabilities.draw_rank_distances(widths, levels, DRAWS, seed))

    def tail(difference: NDArray[Any], n: int, m: int, _both: NDArray[Any]) -> float:
        p_value = _share_beyond(null, float(np.abs(difference) @ widths) / sqrt(1 / n + 1 / m))
        return float(p_value**tail_probabilities.MARGIN)

    return column.parts[0][:, None] > edges, tail


def _share_beyond(null: NDArray[Any], statistic: float) -> float:
    import numpy as np

    return float((1 + len(null) - np.searchsorted(null, statistic * (1 - 1e-9))) / (1 + len(null)))


_FREEZERS: dict[str, Callable[[SignalValues, Any, int], tuple[Any, Tail]]] = {
    "text": _freeze_text,
    "tone": _freeze_tone,
    "language": _freeze_category,
    "category": _freeze_category,
    "number": _freeze_number,
    "share": _freeze_share,
}

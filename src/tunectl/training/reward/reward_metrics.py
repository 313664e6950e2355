"""Metrics of rewards on pairs: accuracy, log-loss and calibration, with intervals.

Pairs of one prompt are not independent, so intervals come from resampling prompts (cluster bootstrap; Efron and Tibshirani,
1993). Log-loss and probabilities are those of Bradley and Terry (1952): an answer wins with the logistic of the rewards' difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from tunectl.stats import bootstrap
from tunectl.stats.proportion_ci import wilson_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

RIDGE = 1e-3
"""Ridge on the length model's weight: it stays finite where length explains everything."""
NEWTON_STEPS = 50
"""Most steps of its fit; ten are enough."""
SAME = 1e-6
"""Difference of rewards (natural log units) below which they are equal: the pair counts as half right."""


class Estimate(Struct, frozen=True):
    """A metric with the ends of its interval; None where there are too few prompts for one."""

    value: float
    low: float | None
    high: float | None


class CalibrationBin(Struct, frozen=True):
    """Pairs whose predicted winner had a probability from ``start`` to ``end``, and how often the prediction was right."""

    start: float
    end: float
    pairs: int
    confidence: float
    """Mean probability of the predicted winner, 0.5 to 1."""
    accuracy: float
    """Share in which the predicted winner was right."""
    low: float
    high: float
    """Upper end of the Wilson interval of that share; ``low`` is the lower one."""


class RewardMeasurement(Struct, frozen=True):
    """Accuracy, log-loss and calibration of one model on the pairs of one split."""

    pairs: int
    prompts: int
    """Number of independent groups of pairs."""
    accuracy: Estimate
    """Share of pairs whose better answer has the higher reward; equal rewards count half."""
    log_loss: Estimate
    """Nats per pair; ln 2 = 0.693 is no better than chance."""
    ece: Estimate
    """Expected calibration error: mean distance of probability and share over ``bins``, weighted by pairs (arXiv 1706.04599)."""
    bins: list[CalibrationBin]


class Slice(Struct, frozen=True):
    """Accuracy on the pairs that share a value of one field of their input."""

    field: str
    value: str
    pairs: int
    accuracy: Estimate


class IntervalSettings(Struct, frozen=True):
    """Settings of bootstrap intervals (level, resamples, seed) and the number of calibration bins."""

    confidence: float
    resamples: int
    bins: int
    seed: int


def measure(differences: Sequence[float], prompts: Sequence[str], settings: IntervalSettings) -> RewardMeasurement:
    """Return accuracy, log-loss and calibration from ``differences``, better minus worse answer of each pair (natural log units).

    ``prompts`` name the prompt of each pair, for resampling.
    Raises  ValueError where there are no pairs.
    """
    if not differences:
        raise ValueError("there are no pairs, so nothing can be measured")
    rows = _statistics(differences, settings.bins)
    groups = bootstrap.sum_by_group(rows, prompts)
    counts = bootstrap.resample_counts(len(groups), settings.resamples, settings.seed)
    accuracy = _figure(groups, _accuracy, counts, settings.confidence)
    return RewardMeasurement(
        pairs=len(differences),
        prompts=len(groups),
        accuracy=_widen_interval(accuracy, len(groups), settings.confidence),
        log_loss=_figure(groups, _log_loss, counts, settings.confidence),
        ece=_figure(groups, _calibration, counts, settings.confidence),
        bins=_bins(rows.sum(axis=0), settings),
    )


def accuracy(differences: Sequence[float], prompts: Sequence[str], settings: IntervalSettings) -> Estimate:
    """Return the share of ``differences`` above 0, ties half, with its interval; ``prompts`` name the prompt of each pair."""
    return measure(differences, prompts, replace(settings, bins=2)).accuracy


def accuracy_gain(
    first: Sequence[float], second: Sequence[float], prompts: Sequence[str], settings: IntervalSettings
) -> Estimate:
    """Return the accuracy of the ``first`` model minus that of the ``second``, with an interval from the same resamples of prompts.

    ``first`` and ``second`` are their differences (better minus worse answer) on the same pairs, in one order.
    """
    left, right = (bootstrap.sum_by_group(_statistics(item, 2), prompts) for item in (first, second))
    counts = bootstrap.resample_counts(len(left), settings.resamples, settings.seed)
    result = bootstrap.difference(left, right, _accuracy, counts, settings.confidence)
    if result is None:
        return Estimate(float(_accuracy(left.sum(axis=0)) - _accuracy(right.sum(axis=0))), None, None)
    return Estimate(result.value, result.low, result.high)


def slices(
    differences: Sequence[float],
    prompts: Sequence[str],
    values: Sequence[dict[str, str]],
    settings: IntervalSettings,
    *,
    most: int,
) -> list[Slice]:
    """Return accuracy by each value of each field that has two to ``most`` values, largest first; ``values`` has one dict per pair."""
    result = []
    for field in dict.fromkeys(name for item in values for name in item):
        indexes: dict[str, list[int]] = {}
        for index, fields in enumerate(values):
            if fields.get(field):
                indexes.setdefault(fields[field], []).append(index)
        if not 2 <= len(indexes) <= most:
            continue
        for value, some in sorted(indexes.items(), key=lambda item: (-len(item[1]), item[0])):
            figure = accuracy([differences[index] for index in some], [prompts[index] for index in some], settings)
            result.append(Slice(field, value, len(some), figure))
    return result


def fit_length(differences: Sequence[int]) -> float:
    """Return the weight per character of a logistic model that sees only how much longer the better answer is.

    Newton's method on the log-loss of ``differences`` (characters, better minus worse), with a small ridge penalty.
    """
    import numpy as np

    x = np.asarray(differences, dtype=float)
    scale = float(np.sqrt((x**2).mean())) if len(x) else 0.0
    if not scale:
        return 0.0
    x = x / scale
    weight = 0.0
    for _ in range(NEWTON_STEPS):
        lost = 1 / (1 + np.exp(np.clip(weight * x, -60, 60)))
        slope = -(lost * x).mean() + RIDGE * weight
        curvature = (lost * (1 - lost) * x**2).mean() + RIDGE
        weight -= float(np.clip(slope / curvature, -1, 1))
    return weight / scale


def correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Pearson's correlation, -1 to 1; None where one of them does not vary."""
    import numpy as np

    table = np.asarray([first, second], dtype=float)
    if table.shape[1] < 2 or not table.std(axis=1).all():
        return None
    return float(np.corrcoef(table)[0, 1])


def _statistics(differences: Sequence[float], bins: int) -> NDArray[Any]:
    """Return one row per pair: 1, right, loss; then a bin's pairs, confidence and right, for each bin."""
    import numpy as np

    gaps = np.asarray(differences, dtype=float)
    right = np.where(np.abs(gaps) < SAME, 0.5, gaps > 0)
    sure = 1 / (1 + np.exp(-np.minimum(np.abs(gaps), 700)))
    bins_ = np.minimum((sure - 0.5) * 2 * bins, bins - 1).astype(int)
    table = np.zeros((len(gaps), 3 + 3 * bins))
    table[:, 0], table[:, 1], table[:, 2] = 1, right, np.logaddexp(0, -gaps)
    rows = np.arange(len(gaps))
    for offset, column in enumerate((np.ones(len(gaps)), sure, right)):
        table[rows, 3 + 3 * bins_ + offset] = column
    return table


def _accuracy(sums: NDArray[Any]) -> NDArray[Any]:
    result: NDArray[Any] = sums[..., 1] / sums[..., 0]
    return result


def _log_loss(sums: NDArray[Any]) -> NDArray[Any]:
    result: NDArray[Any] = sums[..., 2] / sums[..., 0]
    return result


def _calibration(sums: NDArray[Any]) -> NDArray[Any]:
    result: NDArray[Any] = abs(sums[..., 4::3] - sums[..., 5::3]).sum(axis=-1) / sums[..., 0]
    return result


def _figure(groups: NDArray[Any], combine: bootstrap.Combine, counts: NDArray[Any], confidence: float) -> Estimate:
    result = bootstrap.interval(groups, combine, counts, confidence)
    if result is None:
        return Estimate(float(combine(groups.sum(axis=0))), None, None)
    return Estimate(result.value, result.low, result.high)


def _widen_interval(figure: Estimate, prompts: int, confidence: float) -> Estimate:
    """Return the estimate with Wilson's interval of the prompts where all prompts agree, since resampling them gives no width; else unchanged."""
    if figure.low is None or figure.high is None or figure.high - figure.low > SAME:
        return figure
    low, high = wilson_interval(figure.value * prompts, prompts, level=confidence)
    return Estimate(figure.value, low, high)


def _bins(sums: NDArray[Any], settings: IntervalSettings) -> list[CalibrationBin]:
    """Return the bins with pairs."""
    result = []
    for number in range(settings.bins):
        pairs, sure, right = (float(value) for value in sums[3 + 3 * number : 6 + 3 * number])
        if pairs:
            width = 0.5 / settings.bins
            low, high = wilson_interval(right, pairs, level=settings.confidence)
            start = 0.5 + number * width
            result.append(
                CalibrationBin(
                    round(start, 6), round(start + width, 6), round(pairs), sure / pairs, right / pairs, low, high
                )
            )
    return result

"""Metrics: each is a function of sums over items, so that the bootstrap can recompute it cheaply.

Statistics come from the scorers in ``backends`` (sacrebleu, rouge-score) or from this package; here they become numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of the comparison: its title, its unit, and how sums of statistics become its value."""

    name: str
    title: str
    unit: str
    better: Literal["higher", "lower", "neither"]
    combine: Callable[[NDArray[Any]], NDArray[Any]]
    """Sums of statistics (..., statistics) -> values (...); NaN where undefined."""


def bleu(sums: NDArray[Any]) -> NDArray[Any]:
    """Return corpus BLEU, 0 to 100, with sacrebleu's default smoothing (``exp``: Chen and Cherry, 2014, method 3).

    ``sums`` (..., 10): answer length, closest reference length, matched 1- to 4-grams, all 1- to 4-grams.
    """
    import numpy as np

    sums = np.asarray(sums, dtype=np.float64)
    length, reference, matched, total = sums[..., 0], sums[..., 1], sums[..., 2:6], sums[..., 6:10]
    unmatched = (matched == 0) & (total > 0)
    halvings = np.cumsum(unmatched, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(unmatched, 1 / (2.0**halvings * total), matched / total)
        brevity = np.where(length < reference, np.exp(1 - reference / length), 1.0)
        value = 100 * brevity * np.exp(np.log(precision).mean(axis=-1))
    undefined = (total == 0).any(axis=-1) | (matched == 0).all(axis=-1)
    return np.where(undefined, 0.0, value)


def chrf(sums: NDArray[Any]) -> NDArray[Any]:
    """Return corpus chrF2, 0 to 100 (Popović, 2015), with sacrebleu's defaults: character orders 1 to 6, beta 2.

    ``sums`` (..., 18): for each order, n-grams of the answer, of the reference, and in both.
    """
    import numpy as np

    sums = np.asarray(sums, dtype=np.float64)
    answer, reference, both = sums[..., 0::3], sums[..., 1::3], sums[..., 2::3]
    defined = (answer > 0) & (reference > 0)
    orders = defined.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(defined, both / answer, 0.0).sum(axis=-1) / orders
        recall = np.where(defined, both / reference, 0.0).sum(axis=-1) / orders
        value = 100 * 5 * precision * recall / (4 * precision + recall)
    return np.where(np.isfinite(value), value, 0.0)


def mean(sums: NDArray[Any]) -> NDArray[Any]:
    """Return the mean, shape (...), from ``sums``, shape (..., 2): total and count. NaN where the count is 0."""
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan)


def percentage(sums: NDArray[Any]) -> NDArray[Any]:
    """Return the mean of shares as a percentage, shape (...), from ``sums``, shape (..., 2): total and count. NaN where the count is 0."""
    return 100 * mean(sums)


def perplexity(sums: NDArray[Any]) -> NDArray[Any]:
    """Return the exponential of the mean negative log-probability per token; ``sums`` (..., 2): nats (zero or below) and tokens."""
    import numpy as np

    value: NDArray[Any] = np.exp(-mean(sums))
    return value


MEASURES: tuple[Metric, ...] = (
    Metric("bleu", "BLEU", "points", "higher", bleu),
    Metric("chrf", "chrF", "points", "higher", chrf),
    Metric("rouge_l", "ROUGE-L", "points", "higher", percentage),
    Metric("perplexity", "Perplexity", "a token", "lower", perplexity),
    Metric("checks", "Checks passed", "%", "higher", percentage),
    Metric("slot_error", "Slot errors", "% of attributes", "lower", percentage),
    Metric("slot_added", "Added", "a 100 answers", "neither", percentage),
    Metric("words", "Length", "words", "neither", mean),
    Metric("unfinished", "Cut off", "%", "lower", percentage),
    Metric("seen", "4-grams seen in training", "%", "neither", percentage),
)
"""Every metric, in the order of the tables. ``perplexity``, ``checks`` and the two of slots may be absent in a run."""

WINS = Metric("win_rate", "Win rate", "points over 50 %", "higher", percentage)
"""Metric of a pair of systems, so it is no column of one system."""


def sort_metrics(names: Iterable[str]) -> list[str]:
    """Return the names of metrics in the order of the tables, single checks last."""
    requested = set(names)
    usual = [measure.name for measure in MEASURES if measure.name in requested]
    return usual + sorted(requested - set(usual))


def check(name: str) -> Metric:
    """Return the metric of the declared check called ``name``."""
    return Metric(f"check_{name}", f"Check {name}", "%", "higher", percentage)


def get_metric(name: str) -> Metric:
    """Return the metric called ``name``, which may be a declared check.

    Raises  KeyError for an unknown name: a bug, because names come from this module.
    """
    for measure in (*MEASURES, WINS):
        if measure.name == name:
            return measure
    if name.startswith("check_"):
        return check(name.removeprefix("check_"))
    raise KeyError(name)

"""Compare systems: every metric with its interval, every difference on the same resamples, and slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunectl.evaluation import metrics
from tunectl.evaluation.items import Item
from tunectl.evaluation.results import InputScores, MetricDifference, Score, SlicePart
from tunectl.evaluation.scoring import Statistics
from tunectl.stats import bootstrap

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Resampling:
    """Bootstrap resamples that all systems share: counts (resamples, groups) and the group of each item."""

    counts: NDArray[Any]
    groups: tuple[str, ...]
    confidence: float


def make_resampling(groups: Sequence[str], *, resamples: int, confidence: float, seed: int) -> Resampling:
    """Return bootstrap resamples of whole groups; ``groups`` names the group of each item.

    ``resamples`` is their number, ``confidence`` the level of the intervals, 0 to 1. Items of one cluster (near duplicates, or one
    group of the split) are not independent.
    """
    units = len(dict.fromkeys(groups))
    return Resampling(bootstrap.resample_counts(max(units, 1), resamples, seed), tuple(groups), confidence)


def score(name: str, statistics: NDArray[Any], plan: Resampling) -> Score | None:
    """Return the metric ``name`` of one system from its ``statistics`` (items, statistics); None where it is undefined on these items."""
    import numpy as np

    measure = metrics.get_metric(name)
    value = float(measure.combine(statistics.sum(axis=0)))
    if not np.isfinite(value):
        return None
    grouped = bootstrap.sum_by_group(statistics, plan.groups)
    ends = bootstrap.interval(grouped, measure.combine, plan.counts, plan.confidence)
    items = int((statistics[:, -1] > 0).sum()) if statistics.shape[1] == 2 else len(statistics)
    return Score(value, ends.low if ends else None, ends.high if ends else None, items)


def scores(statistics: Statistics, plan: Resampling) -> dict[str, Score]:
    """Return all metrics of one system that are defined, by name."""
    result = {name: score(name, table, plan) for name, table in statistics.items()}
    return {name: value for name, value in result.items() if value is not None}


def differences(
    tables: Mapping[str, Statistics], pairs: Sequence[tuple[str, str]], plan: Resampling
) -> list[MetricDifference]:
    """Return for each of ``pairs`` the difference (first system minus second) in every metric that both have.

    ``tables`` holds the statistics of each metric by system.
    """
    result = []
    for system, against in pairs:
        for name, table in tables[system].items():
            if name in tables[against]:
                result.append(difference(name, (system, table), (against, tables[against][name]), plan))
    return [item for item in result if item is not None]


def difference(
    name: str, system: tuple[str, NDArray[Any]], against: tuple[str, NDArray[Any]], plan: Resampling
) -> MetricDifference | None:
    """Return the difference of a pair in the metric ``name``; ``system`` and ``against`` are (name, statistics (items, statistics)).

    Without an interval where there are fewer than two groups; None where the metric is undefined on these items.
    """
    import numpy as np

    combine = metrics.get_metric(name).combine
    value = float(combine(system[1].sum(axis=0))) - float(combine(against[1].sum(axis=0)))
    if not np.isfinite(value):
        return None
    left, right = (bootstrap.sum_by_group(table, plan.groups) for table in (system[1], against[1]))
    result = bootstrap.difference(left, right, combine, plan.counts, plan.confidence)
    if result is None:
        return MetricDifference(system[0], against[0], name, value, None, None, None)
    return MetricDifference(system[0], against[0], name, value, result.low, result.high, result.probability)


def list_input_scores(items: Sequence[Item], tables: Mapping[str, Statistics]) -> list[InputScores]:
    """Return the statistics of each metric by input, for comparisons with other runs."""
    return [
        InputScores(
            item.id,
            item.cluster,
            {
                system: {name: [float(number) for number in table[index]] for name, table in statistics.items()}
                for system, statistics in tables.items()
            },
        )
        for index, item in enumerate(items)
    ]


def compare_runs(
    old: Sequence[InputScores], new: Sequence[InputScores], *, resamples: int, confidence: float, seed: int
) -> list[MetricDifference]:
    """Return the difference in every metric of every system that two runs have, the second run minus the first, paired by input.

    Both must hold the same inputs, in any order; ``against`` is the same system in the first run. ``resamples`` is the number
    of bootstrap resamples, ``confidence`` the level of the intervals, 0 to 1.
    """
    import numpy as np

    before = {row.id: row.statistics for row in old}
    plan = make_resampling([row.group for row in new], resamples=resamples, confidence=confidence, seed=seed)
    result = []
    for system, statistics in new[0].statistics.items() if new else ():
        for name in statistics:
            if name not in old[0].statistics.get(system, {}):
                continue
            own_values = np.array([row.statistics[system][name] for row in new])
            earlier_values = np.array([before[row.id][system][name] for row in new])
            result.append(difference(name, (system, own_values), (system, earlier_values), plan))
    return [item for item in result if item is not None]


def score_inputs(rows: Sequence[InputScores]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the metrics of each input alone: system -> metric -> input id -> value, where it is defined."""
    import numpy as np

    scores: dict[str, dict[str, dict[str, float]]] = {}
    for system, statistics in rows[0].statistics.items() if rows else ():
        for name in statistics:
            values = metrics.get_metric(name).combine(np.array([row.statistics[system][name] for row in rows]))
            scored = zip(rows, values, strict=True)
            scores.setdefault(system, {})[name] = {row.id: float(value) for row, value in scored if np.isfinite(value)}
    return scores


@dataclass(frozen=True, slots=True)
class SliceSettings:
    """The fields by which test inputs are divided into slices, and the settings of each slice's intervals."""

    fields: Sequence[str]
    small: int
    """Fewer items than this are too few to judge."""
    primary: str
    resamples: int
    confidence: float
    seed: int


def slices(items: Sequence[Item], tables: Mapping[str, Statistics], cut: SliceSettings) -> list[SlicePart]:
    """Return the primary metric of every system on each value of each field, largest slice first; fields with one value are left out."""
    parts = []
    for field in ["kind", *cut.fields]:
        values: dict[str, list[int]] = {}
        for index, item in enumerate(items):
            value = item.kind if field == "kind" else item.fields.get(field, "")
            values.setdefault(value or "(not given)", []).append(index)
        if field == "kind" and len(values) < 2:
            continue
        ordered = sorted(values.items(), key=lambda pair: (-len(pair[1]), pair[0]))
        parts += [_part(field, value, indexes, items, tables, cut) for value, indexes in ordered]
    return parts


def by_number(
    field: str, numbers: Sequence[int], items: Sequence[Item], tables: Mapping[str, Statistics], cut: SliceSettings
) -> list[SlicePart]:
    """Return one slice for each value of ``numbers`` (one per item), smallest first, with the metric ``cut.primary`` of every system.

    ``field`` is the name of these slices.
    """
    indexes: dict[int, list[int]] = {}
    for index, number in enumerate(numbers):
        indexes.setdefault(number, []).append(index)
    return [_part(field, str(number), indexes[number], items, tables, cut) for number in sorted(indexes)]


def _part(
    field: str,
    value: str,
    indexes: list[int],
    items: Sequence[Item],
    tables: Mapping[str, Statistics],
    cut: SliceSettings,
) -> SlicePart:
    plan = make_resampling(
        [items[index].cluster for index in indexes],
        resamples=cut.resamples,
        confidence=cut.confidence,
        seed=cut.seed,
    )
    own = {name: statistics[cut.primary][indexes] for name, statistics in tables.items() if cut.primary in statistics}
    result = {name: score(cut.primary, table, plan) for name, table in own.items()}

    def gain(system: str, against: str) -> MetricDifference | None:
        if system not in own or against not in own:
            return None
        return difference(cut.primary, (system, own[system]), (against, own[against]), plan)

    defined = {name: value for name, value in result.items() if value is not None}
    small = len(indexes) < cut.small
    return SlicePart(field, value, len(indexes), small, defined, gain("tuned", "base"), gain("aligned", "tuned"))

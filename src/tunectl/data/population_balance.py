"""Compare the data with the population that the model serves.

NIST SP 1270 (2022) calls the gap statistical bias: a sample that does not represent its population. Intervals and tests take into account
that rows of one group (many ads of one business) are not independent, and that weighted rows are worth less.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from msgspec import Struct

from tunectl.artifacts.records import Example
from tunectl.core.hashing import hash_to_unit
from tunectl.stats import goodness_of_fit
from tunectl.stats.design_effect import EffectiveSize, effective_size
from tunectl.stats.proportion_ci import wilson_interval
from tunectl.stats.raking import Margin, RakingResult, effective_sample_size, rake

MAX_UNKNOWN_VALUES = 20
"""Number of unknown values that are listed by name."""


class ValueShare(Struct, frozen=True):
    """Observed share of one value of a field, with its interval, and its share of the population."""

    value: str
    rows: int
    share: float
    """Share of the rows with a known value; weighted where rows have weights."""
    low: float
    """Lower end of the 95 % interval of the share; ``high`` is the upper end."""
    high: float
    target: float

    @property
    def out_of_balance(self) -> bool:
        """Whether the population's share lies outside the interval of the observed share."""
        return not self.low <= self.target <= self.high


class FieldBalance(Struct, frozen=True):
    """Shares of one field's values in the data, beside those of the population."""

    field: str
    values: list[ValueShare]
    known: int
    """Rows with a value that the population names."""
    missing: int
    """Rows without a value."""
    unknown: dict[str, int]
    """Values that the population does not name, most frequent first, and their rows; at most 20."""
    worth: float
    """Effective sample size: smaller than the number of rows where they come in groups or have weights."""
    test: goodness_of_fit.GoodnessOfFit | None
    """None where no row is known."""

    @property
    def size(self) -> str:
        """Cohen's label for the distance between both sets of shares: negligible, small, medium or large."""
        return goodness_of_fit.effect_size_label(self.test.effect) if self.test else "unknown"


def measure_shares(
    rows: Sequence[Mapping[str, str]],
    field: str,
    target: Mapping[str, float],
    *,
    seed: int,
    weights: Sequence[float] | None = None,
    clusters: Sequence[str] | None = None,
) -> FieldBalance:
    """Return the shares of ``field`` in ``rows`` (each a record's fields) beside ``target`` (value to share of the population, 0 to 1).

    With ``weights`` the shares are weighted. ``clusters`` names the cluster of each row, within which rows are not independent.
    """
    number = {value: code for code, value in enumerate(target)}
    counts = Counter(row.get(field, "") for row in rows)
    indexes = [index for index, row in enumerate(rows) if row.get(field, "") in number]
    strange = Counter({value: count for value, count in counts.items() if value and value not in number})
    most_common_unknown = dict(strange.most_common(MAX_UNKNOWN_VALUES))
    if not indexes:
        nothing = [ValueShare(value, 0, 0.0, 0.0, 1.0, target[value]) for value in target]
        return FieldBalance(field, nothing, 0, counts[""], most_common_unknown, 0.0, None)
    codes = [number[rows[index][field]] for index in indexes]
    row_weights = [weights[index] for index in indexes] if weights is not None else [1.0] * len(indexes)
    if clusters is None:
        effective = EffectiveSize(
            [effective_sample_size(row_weights)] * len(target), effective_sample_size(row_weights)
        )
    else:
        effective = effective_size(codes, len(target), row_weights, [clusters[index] for index in indexes])
    sums = [0.0] * len(target)
    for code, weight in zip(codes, row_weights, strict=True):
        sums[code] += weight
    shares = [part / sum(sums) for part in sums]
    values = [
        ValueShare(value, counts[value], share, *wilson_interval(min(1.0, share) * size, size), target[value])
        for value, share, size in zip(target, shares, effective.each, strict=True)
    ]
    scaled = [round(share * effective.all) for share in shares]
    test = goodness_of_fit.chi_square_test(scaled, list(target.values()), seed=seed) if sum(scaled) else None
    return FieldBalance(field, values, len(indexes), counts[""], most_common_unknown, effective.all, test)


def raking_weights(
    examples: Sequence[Example], population: Mapping[str, Mapping[str, float]], *, low: float, high: float
) -> RakingResult:
    """Return weights from ``low`` to ``high``, mean 1, with which all fields of ``population`` have their shares at once (raking)."""
    margins = []
    for field, target in population.items():
        number = {value: code for code, value in enumerate(target)}
        codes = [number.get(example.fields.get(field, ""), -1) for example in examples]
        margins.append(Margin(codes, list(target.values())))
    return rake(margins, len(examples), low=low, high=high)


def resample_counts(
    examples: Sequence[Example], weights: Sequence[float], *, fields: Sequence[str], most: int, seed: int
) -> list[int]:
    """Return how often each record is written, 0 to ``most`` times, so that the counts follow ``weights`` and have their sum.

    Systematic sampling over the records sorted by their values of ``fields``, then by hashed id: each combination of values gets
    its weighted number of copies within one record, whatever the order of the rows.
    """
    keys = [
        (tuple(example.fields.get(name, "") for name in fields), hash_to_unit(f"{seed}\0{example.id}"), example.id)
        for example in examples
    ]
    times = [0] * len(examples)
    reached = hash_to_unit(f"{seed}\0resample")
    for row in sorted(range(len(examples)), key=keys.__getitem__):
        before = reached
        reached += min(weights[row], float(most))
        times[row] = min(most, int(reached) - int(before))
    return times

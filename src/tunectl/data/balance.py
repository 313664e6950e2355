"""Who is in the data, against the population that the model serves.

NIST SP 1270 (2022) calls the gap statistical bias: a sample that does not represent its population. Intervals and tests take
rows as independent; where rows come in groups (many ads of one business) the truth is wider than they say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from msgspec import Struct

from tunectl.artifacts.records import Example
from tunectl.data.grouping import position
from tunectl.stats import goodness
from tunectl.stats.interval import wilson
from tunectl.stats.raking import Margin, Raked, effective, rake

MOST_UNKNOWN = 20
"""Unknown values listed by name."""


class ValueShare(Struct, frozen=True):
    """One value of a field: how often it occurs, and how often it should."""

    value: str
    rows: int
    share: float
    """Of the rows with a known value; by weight where rows are weighted."""
    low: float
    """Ends of the 95 % interval of the share."""
    high: float
    target: float

    @property
    def off(self) -> bool:
        """Whether the population's share lies outside the interval."""
        return not self.low <= self.target <= self.high


class FieldBalance(Struct, frozen=True):
    """One field against its population."""

    field: str
    values: list[ValueShare]
    known: int
    """Rows with a value that the population names."""
    missing: int
    """Rows without a value."""
    unknown: dict[str, int]
    """Values that the population does not name, most frequent first, and their rows; at most 20."""
    test: goodness.Goodness | None
    """None where no row is known."""

    @property
    def size(self) -> str:
        """Cohen's word for how far off the shares are: negligible, small, medium or large."""
        return goodness.word(self.test.effect) if self.test else "unknown"


def observe(
    rows: Sequence[Mapping[str, str]],
    field: str,
    target: Mapping[str, float],
    *,
    seed: int,
    weights: Sequence[float] | None = None,
) -> FieldBalance:
    """The shares of ``field`` in ``rows`` (each a record's fields) beside ``target`` (value to share of the population).

    With ``weights`` the shares are weighted, and intervals and test use Kish's effective number of rows.
    """
    values = [row.get(field, "") for row in rows]
    weighted = list(weights) if weights is not None else [1.0] * len(rows)
    counts = Counter(values)
    sums = dict.fromkeys(target, 0.0)
    for value, weight in zip(values, weighted, strict=True):
        if value in sums:
            sums[value] += weight
    known = sum(counts[value] for value in target)
    total = sum(sums.values())
    size = effective([weight for value, weight in zip(values, weighted, strict=True) if value in target])
    shares = [
        _value(value, counts[value], sums[value] / total if total else 0.0, size, target[value]) for value in target
    ]
    strange = Counter({value: count for value, count in counts.items() if value and value not in target})
    test = None
    scaled = [entry.rows if weights is None else round(entry.share * size) for entry in shares]
    if sum(scaled) and len(target) > 1:
        test = goodness.against(scaled, list(target.values()), seed=seed)
    return FieldBalance(field, shares, known, counts[""], dict(strange.most_common(MOST_UNKNOWN)), test)


def _value(value: str, rows: int, share: float, size: float, target: float) -> ValueShare:
    low, high = wilson(min(share, 1.0) * size, size) if size else (0.0, 1.0)
    return ValueShare(value, rows, share, low, high, target)


def weigh(
    examples: Sequence[Example], population: Mapping[str, Mapping[str, float]], *, low: float, high: float
) -> Raked:
    """Weights from ``low`` to ``high``, mean 1, that bring all fields of ``population`` to their shares at once (raking)."""
    margins = []
    for field, target in population.items():
        number = {value: code for code, value in enumerate(target)}
        codes = [number.get(example.fields.get(field, ""), -1) for example in examples]
        margins.append(Margin(codes, list(target.values())))
    return rake(margins, len(examples), low=low, high=high)


def copies(
    examples: Sequence[Example], weights: Sequence[float], *, fields: Sequence[str], most: int, seed: int
) -> list[int]:
    """How often each record is written so that records follow ``weights``: as many in all as their sum, 0 to ``most`` each.

    Systematic sampling along the records sorted by their values of ``fields``, then by hashed id: chance moves no combination of values by
    more than one record, and the order of rows plays no part.
    """
    keys = [
        (tuple(example.fields.get(name, "") for name in fields), position(seed, example.id), example.id)
        for example in examples
    ]
    times = [0] * len(examples)
    reached = position(seed, "resample")
    for row in sorted(range(len(examples)), key=keys.__getitem__):
        before = reached
        reached += min(weights[row], float(most))
        times[row] = min(most, int(reached) - int(before))
    return times

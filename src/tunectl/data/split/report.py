"""The report of the split stage, for later stages and people: ``artifacts/split/report.json``."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from msgspec import Struct

from tunectl.data.population_balance import FieldBalance

NAME = "report.json"


class LeakSample(Struct, frozen=True):
    """One leak as shown in the report: the texts of both records."""

    what: str
    """input or answer."""
    overlap: float
    train: str
    """Start of the train record's text."""
    held: str
    """Start of the text that it reveals."""


class ContaminationReport(Struct, frozen=True):
    """Numbers and samples of train records that reveal validation or test records."""

    found: int
    """Number of train examples."""
    documents: int
    """Number of raw documents of the train side."""
    removed: bool
    """Whether they were rejected, or only counted."""
    ngram: int
    overlap: float
    samples: list[LeakSample]


class Weights(Struct, frozen=True):
    """Adjustment of train to the population, by loss weights or by copies, and its effect."""

    method: str
    effective: float
    """Kish's effective number of train records under the weights."""
    gap: float
    """Largest remaining distance from a declared share; limits and absent values keep it above 0."""
    low: float
    """Smallest weight or number of copies of a record; ``high`` is the largest."""
    high: float


class SplitReport(Struct, frozen=True):
    """Content of the split stage's report.json: sizes, leaks, and balance against the population."""

    sizes: dict[str, int]
    """Number of records in train, validation and test."""
    answers: dict[str, int]
    """Number of reference answers in each."""
    documents: int
    """Number of raw documents for cpt and the learning curve."""
    groups: int
    largest_group: int
    """Number of records of the largest group that had to stay together."""
    leaks: ContaminationReport | None
    """None where the comparison is switched off."""
    test_4grams_seen: float | None
    """Share of the 4-word runs in test answers that occur in some train answer; None where answers are shorter."""
    validation_4grams_seen: float | None
    balance: dict[str, list[FieldBalance]]
    """All records, documents, and train as weighted or resampled, against the declared population; empty where none is declared."""
    weights: Weights | None
    """None where train is not adjusted."""


def imbalance_sentences(balance: dict[str, list[FieldBalance]], rows: str) -> Iterator[str]:
    """Yield sentences on where ``rows``, a noun such as ``records`` or ``train``, differ from the population.

    They name values that are over- or under-represented, that never occur, and that the population does not name.
    """
    for field in balance.get(rows, []):
        for value in field.values:
            if value.rows == 0 and value.target > 0:
                yield f"{field.field}={value.value} never occurs: population {value.target:.1%}; no weight makes up for it"
            elif value.out_of_balance:
                prefix = "over" if value.share > value.target else "under"
                yield f"{field.field}={value.value} is {prefix}-represented: {value.share:.1%}, population {value.target:.1%}"
        if field.unknown:
            yield f"{field.field}: the population does not name {_format_unknown_values(field)}; these {rows} are left out of its shares"


def _format_unknown_values(field: FieldBalance) -> str:
    folded = {value.value.strip().casefold(): value.value for value in field.values}
    notes = []
    for name, count in list(field.unknown.items())[:5]:
        near = get_close_matches(name.strip().casefold(), list(folded), 1)
        notes.append(f"{name!r} ({count}{f', did you mean {folded[near[0]]}?' if near else ''})")
    more = len(field.unknown) - len(notes)
    return ", ".join(notes) + (f" and {more} more values" if more else "")

"""``report.json`` of the stage curate: what was repaired, masked, duplicated and rejected. Stable: reports plot it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct, field

from tunectl.artifacts.records import Document, RejectedRow
from tunectl.data.transform import Record


class Duplicates(Struct, frozen=True):
    """Numbers of duplicate records that curate removed, merged or marked."""

    exact: int = 0
    """Records rejected as exact duplicates."""
    near: int = 0
    """Records rejected as near duplicates; 0 when near duplicates are only marked."""
    merged: int = 0
    """Records whose answers were merged into another record with the same input."""
    field_conflicts: int = 0
    """Merged records whose fields differed from those of the record that they were merged into; the latter's were kept."""
    cluster_sizes: dict[str, int] = field(default_factory=dict)
    """Near-duplicate clusters by number of members (``"2": 14``), as they were before removal."""


class Answers(Struct, frozen=True):
    """Numbers of reference answers: ``before == after + sum(dropped.values()) + rejected``."""

    before: int = 0
    after: int = 0
    rejected: int = 0
    """Answers of rejected records."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Answers dropped from records that were kept with other answers, by reason; each is a line of dropped_answers.jsonl."""


class RecordCounts(Struct, frozen=True):
    """Numbers of documents and examples before and after curate."""

    documents_before: int = 0
    documents_after: int = 0
    examples_before: int = 0
    examples_after: int = 0


class CurationReport(Struct, frozen=True):
    """All counts of the stage curate; the fields of a filter that was switched off are null."""

    records: RecordCounts
    answers: Answers
    repairs: dict[str, int] | None
    """Texts that each repair changed, by name: mojibake, html, control_characters, unicode_form, white_space."""
    languages: dict[str, int] | None
    """Tested texts by ISO 639-1 code; ``unknown`` are short or uncertain ones."""
    personal: dict[str, int] | None
    """Masked places by kind: email, phone, card, iban, ip, address, person, url_credentials, ssn, secret."""
    personal_records: int | None
    """Records with at least one masked place."""
    duplicates: Duplicates
    rejected: dict[str, int]
    """Rejected records by reason; samples are in row_counts.json."""
    sources: dict[str, dict[str, int]]
    """By declared source: records ``before`` and ``after``."""


class RecordTally(Struct):
    """Running count of records: by type, with their answers, and by declared source."""

    documents: int = 0
    examples: int = 0
    answers: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    """Number of records by declared source."""

    @property
    def count(self) -> int:
        """Number of all records."""
        return self.documents + self.examples

    def add(self, other: RecordTally) -> None:
        """Add the counts of ``other``."""
        self.documents += other.documents
        self.examples += other.examples
        self.answers += other.answers
        for kind, count in other.kinds.items():
            self.kinds[kind] = self.kinds.get(kind, 0) + count


def tally_records(records: Iterable[Record]) -> RecordTally:
    """Return the counts of ``records`` by type, answers and source."""
    tally = RecordTally()
    for record in records:
        tally.kinds[record.kind] = tally.kinds.get(record.kind, 0) + 1
        if isinstance(record, Document):
            tally.documents += 1
        else:
            tally.examples += 1
            tally.answers += len(record.answers)
    return tally


def count_records(before: RecordTally, after: RecordTally) -> RecordCounts:
    """Return the numbers of documents and examples, before and after."""
    return RecordCounts(before.documents, after.documents, before.examples, after.examples)


def count_answers(before: RecordTally, after: RecordTally, dropped: Sequence[RejectedRow]) -> Answers:
    """Return the numbers of reference answers; one that was neither kept nor dropped belonged to a rejected record."""
    reasons: Counter[str] = Counter(reject.reason for reject in dropped)
    return Answers(
        before=before.answers,
        after=after.answers,
        rejected=before.answers - after.answers - len(dropped),
        dropped=dict(sorted(reasons.items())),
    )


def count_sources(before: RecordTally, after: RecordTally) -> dict[str, dict[str, int]]:
    """Return by declared source the number of its records ``{"before": 9, "after": 7}``."""
    return {kind: {"before": count, "after": after.kinds.get(kind, 0)} for kind, count in sorted(before.kinds.items())}

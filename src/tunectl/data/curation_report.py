"""``report.json`` of the stage curate: what was mended, masked, doubled and turned away. Stable: reports plot it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct, field

from tunectl.artifacts.records import Document, Example, RejectedRow
from tunectl.data.transform import Record


class Duplicates(Struct, frozen=True):
    """Twins among the records."""

    exact: int = 0
    """Records rejected as exact duplicates."""
    near: int = 0
    """Records rejected as near duplicates; 0 when near duplicates are only marked."""
    merged: int = 0
    """Records whose answers went into another record with the same input."""
    field_conflicts: int = 0
    """Merged records whose fields differed from those of the record that took them in; the latter's were kept."""
    cluster_sizes: dict[str, int] = field(default_factory=dict)
    """Near-duplicate clusters by number of members (``"2": 14``), as they were before removal."""


class Answers(Struct, frozen=True):
    """Reference answers: ``before == after + sum(dropped.values()) + rejected``."""

    before: int = 0
    after: int = 0
    rejected: int = 0
    """Gone with their rejected records."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Left out of records that went on with other answers, by reason; each is a line of dropped_answers.jsonl."""


class RecordCounts(Struct, frozen=True):
    """Records of each sort."""

    documents_before: int = 0
    documents_after: int = 0
    examples_before: int = 0
    examples_after: int = 0


class CurationReport(Struct, frozen=True):
    """Everything that curate tells about the data. An absent part (null) was switched off."""

    records: RecordCounts
    answers: Answers
    repairs: dict[str, int] | None
    """Texts that each repair changed, by name: mojibake, html, control_characters, unicode_form, white_space."""
    languages: dict[str, int] | None
    """Judged texts by ISO 639-1 code; ``unknown`` are short or unsure ones."""
    personal: dict[str, int] | None
    """Masked places by kind: email, phone, card, iban, ip, address, person, url_credentials, ssn, secret."""
    personal_records: int | None
    """Records with at least one masked place."""
    duplicates: Duplicates
    rejected: dict[str, int]
    """Records turned away by reason; samples are in row_counts.json."""
    sources: dict[str, dict[str, int]]
    """By declared source: records ``before`` and ``after``."""


def counts(before: Sequence[Record], after: Sequence[Record]) -> RecordCounts:
    """Return records of each sort before and after."""
    return RecordCounts(*(_sort(records, sort) for sort in (Document, Example) for records in (before, after)))


def _sort(records: Sequence[Record], sort: type[Document] | type[Example]) -> int:
    return sum(isinstance(record, sort) for record in records)


def answers(before: Sequence[Record], after: Sequence[Record], dropped: Sequence[RejectedRow]) -> Answers:
    """Count reference answers before and after; one neither kept nor dropped went with its rejected record."""
    first, last = _answers(before), _answers(after)
    reasons: Counter[str] = Counter(reject.reason for reject in dropped)
    return Answers(
        before=first, after=last, rejected=first - last - len(dropped), dropped=dict(sorted(reasons.items()))
    )


def _answers(records: Sequence[Record]) -> int:
    return sum(len(record.answers) for record in records if isinstance(record, Example))


def sources(before: Sequence[Record], after: Sequence[Record]) -> dict[str, dict[str, int]]:
    """Return records of each declared source, before and after."""
    first, last = (Counter(record.kind for record in records) for records in (before, after))
    return {kind: {"before": first[kind], "after": last[kind]} for kind in sorted(first)}

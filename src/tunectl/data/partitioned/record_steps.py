"""Steps on the records of one batch: read, filter, drop exact duplicates, merge references."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tunectl.artifacts import atomic_io
from tunectl.artifacts.records import Document, Example, RejectedRow
from tunectl.core.errors import DataError
from tunectl.data.curation_pipeline import BLOCKS, CurationPipeline
from tunectl.data.curation_report import RecordTally, tally_records
from tunectl.data.dedup.exact import ExactDedup, Form, MergeReferences, exact_input_key, identity
from tunectl.data.partitioned.tables import (
    ANSWER,
    BLOCK_BITS,
    FAILURE,
    FILE_BITS,
    MERGED,
    RECORD,
    REJECT,
    TALLY,
    Batch,
    EventRows,
)
from tunectl.data.text_normalization import digest16
from tunectl.data.transform import MergedRecord, Record, RejectedRecord, Transform, check_outcomes, reject_outcome

EXACT, REFERENCES = BLOCKS.index("exact"), BLOCKS.index("references")
T = TypeVar("T")
_BUILT: dict[str, CurationPipeline] = {}
"""Filters by the name of the run: built once per process, since lists of names take time to load."""


class FilterTally(msgspec.Struct):
    """Counts of one batch: its records, and how many each filter changed."""

    records: RecordTally
    repairs: dict[str, int] = {}
    languages: dict[str, int] = {}
    personal: dict[str, int] = {}
    personal_records: int = 0
    conflicts: int = 0


class JudgeRecords:
    """Reads byte ranges of JSON lines and runs the filters that need one record only; a map step."""

    def __init__(self, run_name: str, build: Callable[[], CurationPipeline], form: Form | None, parts: int) -> None:
        """``form`` is that of exact deduplication; None without it."""
        self.run_name, self.build, self.form, self.parts = run_name, build, form or identity, parts

    def __call__(self, batch: Batch) -> Batch:
        """Return the kept records, rejects and counts as events (``EventRows``); each kept record has the partition of its input."""
        if self.run_name not in _BUILT:
            _BUILT.clear()
            _BUILT[self.run_name] = self.build()
        line = _BUILT[self.run_name]
        events = EventRows()
        for path, file, start, stop in zip(batch["path"], batch["file"], batch["start"], batch["stop"], strict=True):
            try:
                rows, records = read_range(Path(path.decode()), int(file), int(start), int(stop))
            except DataError as error:  # an exception would come back as one of the engine's
                events.add(FAILURE, (int(file) << FILE_BITS) + int(start), error.message)
                continue
            tally = FilterTally(tally_records(records))
            for number, block in enumerate(map(line.find_block, BLOCKS)):
                if block is not None and block.scope == "record":
                    rows, records = run_block(block, number, rows, records, events)
            if line.repair:
                tally.repairs = _take_counts(line.repair.counts)
            if line.language:
                tally.languages = _take_counts(line.language.counts)
            if line.pii:
                tally.personal = _take_counts(line.pii.counts)
                tally.personal_records, line.pii.records = line.pii.records, 0
            for row, record in zip(rows, records, strict=True):
                events.add(RECORD, row, record, part=choose_partition(record, self.form, self.parts))
            events.add(TALLY, (int(file) << FILE_BITS) + int(start), tally)
        return events.batch()


def _take_counts(counts: Any) -> dict[str, int]:
    result = dict(counts)
    counts.clear()
    return result


def choose_partition(record: Record, form: Form, parts: int) -> int:
    """Return the index, 0 to ``parts`` - 1, of the partition of a record; records that are equal in ``form`` get the same one."""
    key = form(record.text).encode() if isinstance(record, Document) else exact_input_key(record, form)
    return int.from_bytes(digest16(key)[:8]) % parts


def read_range(path: Path, file: int, start: int, stop: int) -> tuple[list[int], list[Record]]:
    """Return (numbers, records) of the lines of ``path`` that begin in the byte range [start, stop); ``file`` is its index, part of the numbers.

    Raises  DataError for a line that is no record, naming file and line.
    """
    shape: type[Document] | type[Example] = Document if file == 0 else Example
    decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(shape)
    rows: list[int] = []
    records: list[Record] = []
    with path.open("rb") as stream:
        position = start
        if start:
            stream.seek(start - 1)
            position = start - 1 + len(stream.readline())
        for line in stream:
            if position >= stop:
                break
            try:
                records.append(decoder.decode(line))
            except atomic_io.NOT_JSON as error:
                raise DataError(
                    f"{path}:{_line_number(path, position)} is malformed: {error}",
                    hint="that line was changed by hand or cut off: restore the file, or build it again: tunectl repro",
                ) from error
            rows.append((file << FILE_BITS) + position)
            position += len(line)
    return rows, records


def _line_number(path: Path, position: int) -> int:
    number, remaining = 1, position
    with path.open("rb") as stream:
        while remaining and (block := stream.read(min(remaining, 2**20))):
            number, remaining = number + block.count(b"\n"), remaining - len(block)
    return number


def run_block(
    block: Transform, number: int, rows: list[int], records: Sequence[Record], events: EventRows
) -> tuple[list[int], list[Record]]:
    """Run the filter ``block``, the ``number``-th of the pipeline, on records numbered ``rows``; return the kept (numbers, records).

    Rejected and merged records are added to ``events``.

    Raises  TunectlError when the filter loses or invents a record: a bug in that filter.
    """
    dropped: list[RejectedRow] = getattr(block, "dropped", [])
    row_of = {record.id: row for row, record in zip(reversed(rows), reversed(records), strict=True)}
    remaining_rows: list[int] = []
    remaining: list[Record] = []
    outcomes = 0
    for outcome in block(records):
        row = rows[outcomes] if outcomes < len(rows) else -1
        outcomes += 1
        order = (number << BLOCK_BITS) + row
        if dropped:
            events.add(ANSWER, order, dropped)
            dropped.clear()
        if isinstance(outcome, RejectedRecord):
            events.add(REJECT, order, reject_outcome(outcome))
        elif isinstance(outcome, MergedRecord):
            events.add(MERGED, row_of[outcome.into], outcome.record, own=row)
        else:
            remaining_rows.append(row)
            remaining.append(outcome)
    check_outcomes(block, len(records), outcomes)
    return remaining_rows, remaining


class DropDuplicates:
    """Runs exact deduplication and the merging of references on all records of one partition; a map step."""

    def __init__(self, *, exact: bool, loose: bool) -> None:
        self.exact, self.loose = exact, loose

    def __call__(self, batch: Batch) -> Batch:
        """Return the kept records, duplicates, merged records and counts as events (``EventRows``)."""
        events = EventRows()
        rows, records = decode_records(batch)
        if self.exact:
            rows, records = run_block(ExactDedup(loose=self.loose), EXACT, rows, records, events)
        references = MergeReferences()
        rows, records = run_block(references, REFERENCES, rows, records, events)
        for row, record in zip(rows, records, strict=True):
            events.add(RECORD, row, record)
        events.add(TALLY, 0, FilterTally(RecordTally(), conflicts=references.conflicts))
        return events.batch()


def decode_records(batch: Batch) -> tuple[list[int], list[Record]]:
    """Return (numbers, records) of the events of the type RECORD in a batch, in the order of the numbers."""
    import numpy as np

    order = np.argsort(batch["order"], kind="stable").tolist()
    rows: list[int] = batch["order"][order].tolist()
    return rows, [decode_record(row, batch["payload"][index]) for row, index in zip(rows, order, strict=True)]


def decode_record(row: int, payload: bytes) -> Record:
    """Return the record in an event's ``payload``; ``row`` is its number, from which its type follows."""
    if row >> FILE_BITS == 0:
        return msgspec.json.decode(payload, type=Document)
    return msgspec.json.decode(payload, type=Example)


def list_ranges(files: Sequence[Path], size: int) -> Iterator[dict[str, Any]]:
    """Yield byte ranges {file, path, start, stop} of about ``size`` bytes of the existing files, in order; the first file holds documents."""
    for number, path in enumerate(files):
        total = path.stat().st_size if path.is_file() else 0
        for start in range(0, total, size):
            yield {
                "path": str(path.absolute()).encode(),
                "file": number,
                "start": start,
                "stop": min(total, start + size),
            }

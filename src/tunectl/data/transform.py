"""The protocol of filters: each takes records and returns one outcome for each, so that none disappears without a reason.

A filter takes records and yields one outcome for each: the record (perhaps changed), ``RejectedRecord``, or ``MergedRecord``. ``Pipeline.run``
chains filters and checks after each that the sum holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

from tunectl.artifacts.disk_list import DiskList
from tunectl.artifacts.records import Document, Example, RejectedRow, Source, truncate
from tunectl.artifacts.reject_reasons import RejectReason
from tunectl.artifacts.row_counts import RowCounter
from tunectl.core.errors import TunectlError
from tunectl.core.progress import track
from tunectl.data.record_text import all_texts

Record: TypeAlias = Document | Example


class RejectedRecord(Struct, frozen=True):
    """Outcome of a filter: the record is rejected, with the reason and a detail."""

    record: Record
    reason: RejectReason
    """One of a closed set of names, for example ``near_duplicate``."""
    detail: str = ""
    """The value, the pattern, or the duplicate's id that caused it."""


class MergedRecord(Struct, frozen=True):
    """Outcome of a filter: the record's answers were merged into the record with the id ``into``; it counts as kept."""

    record: Record
    into: str
    """Id of the record that it was merged into."""


Outcome: TypeAlias = Record | RejectedRecord | MergedRecord


Scope = Literal["record", "input", "corpus"]
"""Records that a filter must see together: one record, all records with one input, or all records."""


class Transform(Protocol):
    """Protocol of a filter of curate: yields one outcome for each record."""

    @property
    def scope(self) -> Scope:
        """How records may be divided for it: ``record`` (each alone), ``input`` (all of one input together) or ``corpus`` (all together)."""

    @property
    def name(self) -> str:
        """Name of the filter in progress bars and errors."""

    def __call__(self, records: Iterable[Record]) -> Iterator[Outcome]:
        """Yield one outcome for each record."""


class Pipeline:
    """Runs filters one after another and counts rejected and kept records.

    A merged record follows the one that it was merged into: when that one is rejected later, so is it.
    """

    def __init__(self, tally: RowCounter, scratch: Path | None = None) -> None:
        """Keep records between two blocks in memory, or in unnamed files in ``scratch``."""
        self.tally = tally
        self.scratch = scratch
        self._merged = self._open_list()
        self._inside: dict[str, list[int]] = {}
        """Numbers in ``_merged`` of the records that were merged into each record, by its id."""

    def run(self, blocks: Sequence[Transform], records: Iterable[Record]) -> Sequence[Record]:
        """Run ``blocks`` on ``records`` and return the remaining ones, which the row counter counts as kept.

        Raises  TunectlError when a filter loses or invents a record: a bug in that filter.
        """
        remaining = records if isinstance(records, DiskList) else list(records)
        self.tally.read(len(remaining))
        for block in blocks:
            before, remaining = remaining, self._run_block(block, remaining)
            if isinstance(before, DiskList) and before is not records:
                before.close()
        self.tally.keep(len(remaining) + sum(len(inside) for inside in self._inside.values()))
        self._inside.clear()
        return remaining

    def _open_list(self) -> list[Record] | DiskList[Record]:
        return [] if self.scratch is None else DiskList(self.scratch, Document, Example)

    def _run_block(self, block: Transform, records: Sequence[Record]) -> list[Record] | DiskList[Record]:
        remaining = self._open_list()
        outcomes = 0
        for outcome in track(block(records), block.name, total=len(records)):
            outcomes += 1
            if isinstance(outcome, RejectedRecord):
                self._reject(outcome)
            elif isinstance(outcome, MergedRecord):
                inside = self._inside.pop(outcome.record.id, [])
                self._merged.append(outcome.record)
                self._inside.setdefault(outcome.into, []).extend([len(self._merged) - 1, *inside])
            else:
                remaining.append(outcome)
        check_outcomes(block, len(records), outcomes)
        return remaining

    def _reject(self, outcome: RejectedRecord) -> None:
        inside = (self._merged[number] for number in self._inside.pop(outcome.record.id, []))
        for record in (outcome.record, *inside):
            self.tally.reject(reject_outcome(RejectedRecord(record, outcome.reason, outcome.detail)))


def check_outcomes(block: Transform, records: int, outcomes: int) -> None:
    """Check that a filter returned one outcome for each record.

    Raises  TunectlError where it lost or invented one.
    """
    if outcomes != records:
        raise TunectlError(
            f"filter {block.name} returned {outcomes} outcomes for {records} records; one for each record is required",
            hint="a bug in that filter: please report it",
        )


def reject_outcome(outcome: RejectedRecord) -> RejectedRow:
    """Return the line of rejects.jsonl for a rejected record."""
    sample = truncate(" | ".join(all_texts(outcome.record)))
    return RejectedRow(source_of(outcome.record), outcome.reason, outcome.detail, sample)


def source_of(record: Record) -> Source:
    """Return the file and row that a record came from."""
    return record.source

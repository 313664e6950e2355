"""A block: one unit of work on records, in which nothing disappears without a reason.

A block takes records and gives back as many outcomes: the record (perhaps changed), ``Dropped``, or ``MergedInto``. ``run``
chains blocks and proves after each that the sum holds.
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


class Dropped(Struct, frozen=True):
    """A record that does not go on."""

    record: Record
    reason: RejectReason
    """One of a closed set of names, for example ``near_duplicate``."""
    detail: str = ""
    """What offended: the value, the pattern, the twin's id."""


class MergedInto(Struct, frozen=True):
    """A record whose answers went into another record: it is kept, inside that one."""

    record: Record
    into: str
    """Id of the record that took it in."""


Outcome: TypeAlias = Record | Dropped | MergedInto


Scope = Literal["record", "input", "corpus"]
"""What a block must see at once: one record, all records with one input, or all records."""


class Transform(Protocol):
    """One unit of work."""

    @property
    def scope(self) -> Scope:
        """How records may be divided for it."""

    @property
    def name(self) -> str:
        """What progress and errors call it."""

    def __call__(self, records: Iterable[Record]) -> Iterator[Outcome]:
        """Give one outcome for each record."""


class Pipeline:
    """Runs blocks one after another and keeps the account.

    A record that was merged shares the fate of the one that took it in: when that one is rejected later, so is it.
    """

    def __init__(self, tally: RowCounter, scratch: Path | None = None) -> None:
        """Keep records between two blocks in memory, or in unnamed files in ``scratch``."""
        self.tally = tally
        self.scratch = scratch
        self._merged = self._open_list()
        self._inside: dict[str, list[int]] = {}
        """Id of a record to the numbers in ``_merged`` of those that went into it."""

    def run(self, blocks: Sequence[Transform], records: Iterable[Record]) -> Sequence[Record]:
        """Send ``records`` through ``blocks``; what is left was counted as kept in the tally.

        Raises  TunectlError when a block loses or invents a record: a bug in that block.
        """
        left = records if isinstance(records, DiskList) else list(records)
        self.tally.read(len(left))
        for block in blocks:
            before, left = left, self._through(block, left)
            if isinstance(before, DiskList) and before is not records:
                before.close()
        self.tally.keep(len(left) + sum(len(inside) for inside in self._inside.values()))
        self._inside.clear()
        return left

    def _open_list(self) -> list[Record] | DiskList[Record]:
        return [] if self.scratch is None else DiskList(self.scratch, Document, Example)

    def _through(self, block: Transform, records: Sequence[Record]) -> list[Record] | DiskList[Record]:
        left = self._open_list()
        outcomes = 0
        for outcome in track(block(records), block.name, total=len(records)):
            outcomes += 1
            if isinstance(outcome, Dropped):
                self._reject(outcome)
            elif isinstance(outcome, MergedInto):
                inside = self._inside.pop(outcome.record.id, [])
                self._merged.append(outcome.record)
                self._inside.setdefault(outcome.into, []).extend([len(self._merged) - 1, *inside])
            else:
                left.append(outcome)
        if outcomes != len(records):
            raise TunectlError(f"block {block.name}: {len(records)} records in, {outcomes} outcomes")
        return left

    def _reject(self, outcome: Dropped) -> None:
        inside = (self._merged[number] for number in self._inside.pop(outcome.record.id, []))
        for record in (outcome.record, *inside):
            self.tally.reject(reject_outcome(Dropped(record, outcome.reason, outcome.detail)))


def reject_outcome(outcome: Dropped) -> RejectedRow:
    """Return the row of rejects.jsonl for a record that does not go on."""
    sample = truncate(" | ".join(all_texts(outcome.record)))
    return RejectedRow(source_of(outcome.record), outcome.reason, outcome.detail, sample)


def source_of(record: Record) -> Source:
    """Return the file and row that a record came from."""
    return record.source

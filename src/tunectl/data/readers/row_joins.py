"""Join rows that belong together: turns of one conversation by a parent column, inferences and their demonstrations."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from msgspec.structs import replace

from tunectl.artifacts.disk_list import DiskList
from tunectl.artifacts.records import RejectedRow, truncate
from tunectl.artifacts.reject_reasons import RejectReason
from tunectl.data.formats.production_logs import inference_id, is_demonstration
from tunectl.data.readers.row import RawRow, as_json, get_column, scalar


class RowJoiner(Protocol):
    """Collects all rows of a source, then yields them joined."""

    def add(self, row: RawRow) -> None:
        """Add one row."""

    def iter_rows(self) -> Iterator[RawRow | RejectedRow]:
        """Yield every row once, joined, or a reject with the reason."""

    @property
    def joined(self) -> int:
        """Number of rows that were joined to another row and are not yielded themselves."""


class ConversationThreads:
    """Rows with ``id`` and ``parent`` columns (H2O LLM Studio): each row gets the rows before it.

    Rejects ``duplicate_id``, ``unknown_parent``, ``parent_cycle``, ``no_id``.
    """

    joined = 0

    def __init__(self, folder: Path, id_column: str, parent_column: str) -> None:
        self._id, self._parent = id_column, parent_column
        self._spool = DiskList(folder, RawRow)
        self._numbers: dict[str, int] = {}
        self._parents: list[str | None] = []
        self._rejects: list[RejectedRow] = []

    def add(self, row: RawRow) -> None:
        """Add one row."""
        name = scalar(get_column(row.columns, self._id))
        if not name:
            self._rejects.append(_reject(row, "no_id", f"column {self._id!r} is empty"))
        elif name in self._numbers:
            self._rejects.append(_reject(row, "duplicate_id", f"{self._id} {name!r} was there before"))
        else:
            self._numbers[name] = self._spool.append(row)
            self._parents.append(scalar(get_column(row.columns, self._parent)) or None)

    def iter_rows(self) -> Iterator[RawRow | RejectedRow]:
        """Yield every row with its ancestors, or a reject that says what is wrong with its chain."""
        yield from self._rejects
        for number in range(len(self._spool)):
            row = self._spool[number]
            chain: list[int] = []
            parent = self._parents[number]
            problem: RejectReason | None = None
            while parent is not None and problem is None:
                index = self._numbers.get(parent)
                if index is None:
                    problem = "unknown_parent"
                elif index == number or index in chain:
                    problem = "parent_cycle"
                else:
                    chain.append(index)
                    parent = self._parents[index]
            if problem is not None:
                yield _reject(row, problem, f"{self._parent} {parent!r}")
            else:
                yield replace(row, before=[self._spool[index] for index in reversed(chain)])
        self._spool.close()


class InferenceJoin:
    """Inferences and feedback rows (TensorZero): a demonstration becomes the answer of its inference.

    When an inference has several, the last one counts and the earlier are rejected as ``replaced``.
    """

    def __init__(self, folder: Path) -> None:
        self._spool = DiskList(folder, RawRow)
        self._others = array("L")
        self._shown: dict[str, int] = {}
        self._rejects: list[RejectedRow] = []
        self.joined = 0

    def add(self, row: RawRow) -> None:
        """Add one row."""
        name = inference_id(row.columns)
        if name is None or row.columns.get("input") is not None or not is_demonstration(row.columns):
            self._others.append(self._spool.append(row))
            return
        if name in self._shown:
            earlier = self._spool[self._shown[name]]
            self._rejects.append(
                _reject(earlier, "replaced", f"a later demonstration for {name} stands at row {row.source.row}")
            )
        self._shown[name] = self._spool.append(row)

    def iter_rows(self) -> Iterator[RawRow | RejectedRow]:
        """Yield the inferences with their demonstrations, and every unjoined row unchanged."""
        yield from self._rejects
        for number in self._others:
            row = self._spool[number]
            index = None if row.columns.get("input") is None else self._shown.pop(inference_id(row.columns) or "", None)
            if index is None:
                yield row
                continue
            feedback = self._spool[index]
            self.joined += 1
            columns = {**row.columns, "metric_name": "demonstration", "value": feedback.columns["value"]}
            yield replace(row, columns=columns, answer_source=feedback.source)
        for index in self._shown.values():
            yield self._spool[index]
        self._spool.close()


def _reject(row: RawRow, reason: RejectReason, detail: str) -> RejectedRow:
    return RejectedRow(row.source, reason, detail, truncate(as_json(row.columns)))

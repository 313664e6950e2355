"""Read the rows of one source: each becomes a record or a reject with a reason; counts and format decisions are kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from itertools import chain
from typing import Generic, Protocol, TypeVar

from msgspec import Struct, field
from msgspec.structs import replace

from tunectl.artifacts.records import RejectedRow, truncate
from tunectl.artifacts.row_counts import RowCounter
from tunectl.config.schema.ingest import RowLimits
from tunectl.core import logging_setup
from tunectl.core.errors import DataError
from tunectl.data.readers.file_discovery import SourceFile
from tunectl.data.readers.format_detection import SAMPLE_ROWS, truncate_row
from tunectl.data.readers.row import FormatMismatchError, RawRow, RowError, as_json

COLUMNS_SHOWN = 40
"""Most column names that a message lists."""
_log = logging_setup.get_logger(__name__)


class FormatDecision(Struct, frozen=True):
    """A format that ingest detected or was told, and the number of files that it holds for; kept in decisions.json."""

    type: str
    format: str
    holds: str
    why: str
    first_file: str
    unused: list[str] = field(default_factory=list)
    """Columns of its first row that are not read."""
    files: int = 1


class FileFormat(Protocol):
    """Protocol of a detected format: type of file, name of the row format, and what decided it."""

    @property
    def type(self) -> str:
        """Type of file: csv, json, html, ..."""

    @property
    def format(self) -> str:
        """Name of the row format, as in ``ingest.sources.NAME.format``: alpaca, messages, ..."""

    @property
    def holds(self) -> str:
        """What the rows become: documents, examples or judgments."""

    @property
    def why(self) -> str:
        """Reason of the decision: the columns that fit, or that the format was set."""

    @property
    def expects(self) -> str:
        """Description of the columns that the format has."""

    @property
    def unused(self) -> tuple[str, ...]:
        """Columns of the first row that the format does not read."""


D = TypeVar("D", bound=FileFormat)


class SourceReader(ABC, Generic[D]):
    """Reads the files of one source, one after the other; subclasses define what record a row becomes.

    ``section`` is the dotted key above the source's name; ``fields`` maps the name of a declared field to its column.
    """

    def __init__(
        self,
        section: str,
        kind: str,
        declared: str,
        *,
        limits: RowLimits,
        fields: Mapping[str, str],
        tally: RowCounter,
        max_rejected_share: float,
    ) -> None:
        self._kind, self._declared = kind, declared
        self._section, self._key = section, f"{section}.{kind}"
        self._limits, self._fields, self._tally = limits, fields, tally
        self._share = max_rejected_share
        self._requested = set(fields.values())
        self._decisions: dict[tuple[str, str, str], FormatDecision] = {}
        self._counts = Counter[str]()
        self._rejected = Counter[str]()
        self._firsts: dict[str, RejectedRow] = {}
        self._misfits: tuple[int, D, RawRow, str] | None = None
        self._columns: dict[str, None] = {}
        self._fields_seen: set[str] = set()

    @abstractmethod
    def decide(self, file: SourceFile, sample: list[RawRow]) -> D:
        """Return the format of a file's rows, from a sample of them.

        Raises  DataError when the first rows fit no format, or contradict what is declared.
        """

    @abstractmethod
    def make(self, row: RawRow, decision: D) -> None:
        """Build the record of one row and write it.

        Raises  RowError when the row must be rejected.
        """

    @abstractmethod
    def suggest_format_setting(self) -> str:
        """Return a hint how to set a format that was detected wrongly."""

    def read_file(self, file: SourceFile, items: Iterable[RawRow | RejectedRow]) -> None:
        """Read one file: build a record of each of ``items``, or count why it is rejected.

        Raises  DataError when its format cannot be decided, or was decided or set wrongly, or a limit is exceeded.
        """
        stream = iter(items)
        first = list(_first(stream))
        sample = [item for item in first if isinstance(item, RawRow)]
        decision = None
        if sample:
            decision = self.decide(file, sample)
            self._note(decision, file, sample)
        self._counts["files"] += 1
        for item in chain(first, stream):
            self._count_row(file)
            if isinstance(item, RejectedRow):
                self.reject(item)
            else:
                # A file whose first rows are all broken is decided at its first whole one.
                if decision is None:
                    decision = self.decide(file, [item])
                    self._note(decision, file, [item])
                self.build(self._with_file(item, file), decision)
            if self._counts["rows"] == SAMPLE_ROWS:  # early, so that a wrong pin does not read a large file to its end
                self._require_fit(SAMPLE_ROWS)

    def build(self, row: RawRow, decision: D) -> None:
        """Build the record of a row with ``make``, or count why it is rejected."""
        try:
            self.make(row, decision)
        except RowError as error:
            if isinstance(error, FormatMismatchError):
                count = self._misfits[0] + 1 if self._misfits else 1
                first_misfit = self._misfits[1:] if self._misfits else (decision, row, error.detail)
                self._misfits = (count, *first_misfit)
            self.reject(RejectedRow(row.source, error.reason, error.detail, truncate(as_json(row.columns))))

    def keep(self, rows: int) -> None:
        """Count ``rows`` rows as kept."""
        self._counts["kept"] += rows
        self._tally.keep(rows)

    def reject(self, reject: RejectedRow) -> None:
        """Count a rejected row, and keep it for rejects.jsonl."""
        self._rejected[reject.reason] += 1
        self._firsts.setdefault(reject.reason, reject)
        self._tally.reject(reject)

    def require_sound(self) -> None:
        """Check that the source was read in the right format and holds rows.

        Raises  DataError when it held no rows, when all were rejected, when too many had another shape than they were read
                as, or when a declared field never occurred.
        """
        self._require_rows()
        self._require_fit(self._counts["rows"])
        self._require_fields()

    def _note(self, decision: D, file: SourceFile, sample: list[RawRow]) -> None:
        for row in sample:
            if len(self._columns) < COLUMNS_SHOWN:
                self._columns.update(dict.fromkeys(row.columns))
        kind = (decision.type, decision.format, decision.holds)
        before = self._decisions.get(kind)
        if before is not None:
            self._decisions[kind] = replace(before, files=before.files + 1)
            return
        self._decisions[kind] = FormatDecision(*kind, decision.why, file.name, list(decision.unused))
        rest = f"; not used: {', '.join(decision.unused)}" if decision.unused else ""
        description = f"{decision.holds}, {decision.format} ({decision.why}){rest}"
        _log.info("%s: %s is read as %s", self._kind, file.name, description)

    def _count_row(self, file: SourceFile) -> None:
        self._counts["rows"] += 1
        self._tally.read()
        limit = self._limits.max_rows
        if self._counts["rows"] > limit:
            raise DataError(
                f"{self._key}.limits.max_rows = {limit}: the files of this source up to {file.name} have more rows",
                hint="raise the limit, or declare fewer files under path",
            )

    def _with_file(self, row: RawRow, file: SourceFile) -> RawRow:
        extra = {name: value for name, value in file.columns.items() if name in self._requested}
        return replace(row, columns={**extra, **row.columns}) if extra else row

    def _require_fit(self, rows: int) -> None:
        if self._misfits is None:
            return
        count, decision, row, detail = self._misfits
        if count > self._share * rows or not self._counts["kept"]:
            raise self._misread(decision, row, detail)

    def _misread(self, decision: D, row: RawRow, detail: str) -> DataError:
        """Return the error for a wrong format: the first wrong row, and what was expected."""
        lines = [
            f"{self._key}: read as {decision.format} ({decision.why}), but {row.source.location} does not fit: {detail}",
            f"    the row: {truncate_row(row)}",
            f"    {decision.format} expects: {decision.expects}",
        ]
        return DataError("\n".join(lines), hint=self.suggest_format_setting())

    def _require_rows(self) -> None:
        if not self._counts["rows"]:
            raise DataError(
                f"{self._key}: {self._declared} holds no rows", hint="put data there, or take the source out"
            )
        if self._counts["kept"] or self._misfits is not None:
            return
        lines = [
            f"    {count:>7}  {_format_reject(self._firsts[reason])}" for reason, count in self._rejected.most_common()
        ]
        rows = self._counts["rows"]
        subject = f"all {rows} rows of {self._declared} were" if rows > 1 else f"the one row of {self._declared} was"
        text = f"{self._key}: {subject} rejected; the limit is {self._share:.0%}"
        raise DataError("\n".join([text, *lines]), hint=f"fix the data, or take the source out of {self._section}")

    def _require_fields(self) -> None:
        for name, column in self._fields.items():
            if name in self._fields_seen:
                continue
            near = get_close_matches(column, list(self._columns), 1)
            raise DataError(
                f"{self._key}.fields.{name} = {column}: no row has a value there; there are {', '.join(self._columns)}",
                hint=f"did you mean {near[0]}?" if near else "name one of these columns, or take the field out",
            )


def _first(stream: Iterator[RawRow | RejectedRow]) -> Iterator[RawRow | RejectedRow]:
    """Yield the first items, up to the number of rows for detection; broken rows count a tenth, so that the loop ends with these, too."""
    weight = 0.0
    for item in stream:
        yield item
        weight += 1 if isinstance(item, RawRow) else 0.1
        if weight >= SAMPLE_ROWS:
            return


def _format_reject(reject: RejectedRow) -> str:
    location = reject.source.location
    return f"{reject.reason}: first {location} {reject.detail}".rstrip()

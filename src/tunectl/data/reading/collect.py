"""All rows of one source become records, or rejects with a reason; the sums and the decisions are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from string import Formatter

from msgspec import Struct, field
from msgspec.structs import replace

from tunectl.artifacts.records import Document, Example, Reject, preview
from tunectl.artifacts.tally import Tally
from tunectl.config.ingest import Reading
from tunectl.core import log
from tunectl.core.errors import DataError
from tunectl.data.reading.build import build
from tunectl.data.reading.decide import SAMPLE_ROWS, Decision, decide, misread
from tunectl.data.reading.files import SourceFile
from tunectl.data.reading.links import Chains, Demonstrations, Linker
from tunectl.data.reading.rows import Misfit, Row, RowError, as_json
from tunectl.data.reading.spool import References

COLUMNS_SHOWN = 40
"""How many column names a message lists."""
_log = log.get(__name__)


class ReadAs(Struct, frozen=True):
    """One decision, and the files that it was made for."""

    type: str
    format: str
    holds: str
    why: str
    first_file: str
    unused: list[str] = field(default_factory=list)
    """Columns of its first row that nothing reads."""
    files: int = 1


class SourceReport(Struct, frozen=True):
    """What became of one source."""

    declared: str
    """Path, addresses or data set, as declared."""
    files: int
    rows: int
    kept: int
    documents: int
    examples: int
    answers: int
    rejected: dict[str, int] = field(default_factory=dict)
    read_as: list[ReadAs] = field(default_factory=list)


class Collector:
    """Takes the files of one source in, one after the other; ``finish`` closes its account."""

    def __init__(
        self,
        kind: str,
        reading: Reading,
        declared: str,
        *,
        folder: Path,
        tally: Tally,
        emit: Callable[[Document | Example], None],
        max_rejected_share: float,
    ) -> None:
        self._kind, self._reading, self._declared = kind, reading, declared
        self._key = f"ingest.sources.{kind}"
        self._folder, self._tally, self._emit = folder, tally, emit
        self._share = max_rejected_share
        self._references = References(folder) if reading.merge_references else None
        self._linker: Linker | None = None
        self._linked_as: Decision | None = None
        self._decisions: dict[tuple[str, str, str], ReadAs] = {}
        self._counts = Counter[str]()
        self._rejected = Counter[str]()
        self._firsts: dict[str, Reject] = {}
        self._misfits: tuple[int, Decision, Row, str] | None = None
        self._columns: dict[str, None] = {}
        self._fields_seen: set[str] = set()
        template = reading.prompt.template or ""
        self._wanted = {*reading.fields.values(), *(name for _, name, _, _ in Formatter().parse(template) if name)}

    def take(self, file: SourceFile, items: Iterable[Row | Reject]) -> None:
        """Read one file.

        Raises  DataError when its format cannot be decided, or was decided or pinned wrongly, or a limit is passed.
        """
        stream = iter(items)
        first = list(_first(stream))
        sample = [item for item in first if isinstance(item, Row)]
        decision = None
        if sample:
            decision = decide(self._reading, file, sample, self._key)
            self._note(decision, file, sample)
        self._counts["files"] += 1
        for item in chain(first, stream):
            self._count_row(file)
            if isinstance(item, Reject):
                self._reject(item)
            else:
                # A file whose first rows are all broken is decided at its first whole one.
                if decision is None:
                    decision = decide(self._reading, file, [item], self._key)
                    self._note(decision, file, [item])
                self._row(self._with_file(item, file), decision)
            if self._counts["rows"] == SAMPLE_ROWS:  # early, so that a wrong pin does not read a large file to its end
                self._require_fit(SAMPLE_ROWS)

    def finish(self) -> SourceReport:
        """Join what belongs together, and close the account of the source.

        Raises  DataError when it held no rows, when all were rejected, when too many had another shape than they were read
                as, or when a declared field never occurred.
        """
        if self._linker is not None and self._linked_as is not None:
            for item in self._linker.linked():
                if isinstance(item, Reject):
                    self._reject(item)
                else:
                    self._build(item, self._linked_as)
            self._keep(self._linker.joined)
        for example in self._references.merged() if self._references is not None else ():
            self._write(example)
        self._require_rows()
        self._require_fit(self._counts["rows"])
        self._require_fields()
        report = SourceReport(
            self._declared,
            self._counts["files"],
            self._counts["rows"],
            self._counts["kept"],
            self._counts["documents"],
            self._counts["examples"],
            self._counts["answers"],
            dict(sorted(self._rejected.items())),
            list(self._decisions.values()),
        )
        _log.info(
            "%s: %d rows, %d kept, %d rejected; %d documents, %d examples with %d answers",
            self._kind,
            report.rows,
            report.kept,
            report.rows - report.kept,
            report.documents,
            report.examples,
            report.answers,
        )
        return report

    def _note(self, decision: Decision, file: SourceFile, sample: list[Row]) -> None:
        for row in sample:
            if len(self._columns) < COLUMNS_SHOWN:
                self._columns.update(dict.fromkeys(row.columns))
        kind = (decision.type, decision.format, decision.holds)
        before = self._decisions.get(kind)
        if before is not None:
            self._decisions[kind] = replace(before, files=before.files + 1)
            return
        self._decisions[kind] = ReadAs(*kind, decision.why, file.name, list(decision.unused))
        rest = f"; not used: {', '.join(decision.unused)}" if decision.unused else ""
        words = f"{decision.holds}, {decision.format} ({decision.why}){rest}"
        _log.info("%s: %s is read as %s", self._kind, file.name, words)

    def _count_row(self, file: SourceFile) -> None:
        self._counts["rows"] += 1
        self._tally.saw()
        limit = self._reading.limits.rows
        if self._counts["rows"] > limit:
            raise DataError(
                f"{self._key}.limits.rows = {limit}: {file.name} goes beyond it",
                hint="raise the limit, or declare less under path",
            )

    def _with_file(self, row: Row, file: SourceFile) -> Row:
        extra = {name: value for name, value in file.columns.items() if name in self._wanted}
        return replace(row, columns={**extra, **row.columns}) if extra else row

    def _row(self, row: Row, decision: Decision) -> None:
        linker = self._linker_for(decision)
        if linker is None:
            self._build(row, decision)
        else:
            linker.add(row)

    def _linker_for(self, decision: Decision) -> Linker | None:
        columns = self._reading.columns
        if decision.format == "columns" and columns.id is not None and columns.parent is not None:
            self._linker = self._linker or Chains(self._folder, columns.id, columns.parent)
        elif decision.format == "demonstration":
            self._linker = self._linker or Demonstrations(self._folder)
        else:
            return None
        self._linked_as = decision
        return self._linker

    def _build(self, row: Row, decision: Decision) -> None:
        try:
            record = build(row, decision, self._reading, self._kind)
        except RowError as error:
            if isinstance(error, Misfit):
                count = self._misfits[0] + 1 if self._misfits else 1
                known = self._misfits[1:] if self._misfits else (decision, row, error.detail)
                self._misfits = (count, *known)
            self._reject(Reject(row.source, error.reason, error.detail, preview(as_json(row.columns))))
            return
        self._keep(1)
        self._fields_seen.update(record.fields)
        if isinstance(record, Example) and record.answers and self._references is not None:
            self._references.add(record)
        else:
            self._write(record)

    def _write(self, record: Document | Example) -> None:
        if isinstance(record, Document):
            self._counts["documents"] += 1
        else:
            self._counts["examples"] += 1
            self._counts["answers"] += len(record.answers)
        self._emit(record)

    def _keep(self, rows: int) -> None:
        self._counts["kept"] += rows
        self._tally.keep(rows)

    def _reject(self, reject: Reject) -> None:
        self._rejected[reject.reason] += 1
        self._firsts.setdefault(reject.reason, reject)
        self._tally.reject(reject)

    def _require_fit(self, rows: int) -> None:
        if self._misfits is None:
            return
        count, decision, row, detail = self._misfits
        if count > self._share * rows or not self._counts["kept"]:
            raise misread(decision, row, detail, self._key)

    def _require_rows(self) -> None:
        if not self._counts["rows"]:
            raise DataError(
                f"{self._key}: {self._declared} holds no rows", hint="put data there, or take the source out"
            )
        if self._counts["kept"] or self._misfits is not None:
            return
        lines = [f"    {count:>7}  {_shown(self._firsts[reason])}" for reason, count in self._rejected.most_common()]
        rows = self._counts["rows"]
        what = f"all {rows} rows of {self._declared} were" if rows > 1 else f"the one row of {self._declared} was"
        text = f"{self._key}: {what} rejected; at most {self._share:.0%} may be"
        raise DataError("\n".join([text, *lines]), hint="mend the data, or take the source out of ingest.sources")

    def _require_fields(self) -> None:
        for name, column in self._reading.fields.items():
            if name in self._fields_seen:
                continue
            near = get_close_matches(column, list(self._columns), 1)
            raise DataError(
                f"{self._key}.fields.{name} = {column}: no row has a value there; there are {', '.join(self._columns)}",
                hint=f"did you mean {near[0]}?" if near else "name one of these columns, or take the field out",
            )


def _first(stream: Iterator[Row | Reject]) -> Iterator[Row | Reject]:
    """The first items, up to as many rows as a decision needs; broken rows count a tenth, so that they end too."""
    seen = 0.0
    for item in stream:
        yield item
        seen += 1 if isinstance(item, Row) else 0.1
        if seen >= SAMPLE_ROWS:
            return


def _shown(reject: Reject) -> str:
    place = f"{reject.source.file}:{reject.source.row}" if reject.source.row else reject.source.file
    return f"{reject.reason}: first {place} {reject.detail}".rstrip()

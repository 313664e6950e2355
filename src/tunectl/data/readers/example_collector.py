"""Convert all rows of one source to documents and examples, or rejects with a reason; counts and format decisions are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from string import Formatter

from msgspec import Struct, field

from tunectl.artifacts.records import Document, Example
from tunectl.artifacts.row_counts import RowCounter
from tunectl.config.schema.ingest import RowOptions
from tunectl.core import logging_setup
from tunectl.data.formats.format_registry import FORMATS
from tunectl.data.readers.disk_buffer import ReferenceMerger
from tunectl.data.readers.file_discovery import SourceFile
from tunectl.data.readers.format_detection import DetectedFormat, detect
from tunectl.data.readers.record_builder import build_record
from tunectl.data.readers.row import RawRow
from tunectl.data.readers.source_reader import FormatDecision, SourceReader

_log = logging_setup.get_logger(__name__)


class SourceReport(Struct, frozen=True):
    """Result of reading one source."""

    declared: str
    """Path, addresses or data set, as declared."""
    files: int
    rows: int
    kept: int
    documents: int
    examples: int
    answers: int
    rejected: dict[str, int] = field(default_factory=dict)
    read_as: list[FormatDecision] = field(default_factory=list)


class ExampleReader(SourceReader[DetectedFormat]):
    """Reads the files of one source, one after the other; ``finish`` completes its counts."""

    def __init__(
        self,
        kind: str,
        reading: RowOptions,
        declared: str,
        *,
        folder: Path,
        tally: RowCounter,
        emit: Callable[[Document | Example], None],
        max_rejected_share: float,
    ) -> None:
        super().__init__(
            "ingest.sources",
            kind,
            declared,
            limits=reading.limits,
            fields=reading.fields,
            tally=tally,
            max_rejected_share=max_rejected_share,
        )
        self._reading, self._emit = reading, emit
        self._references = ReferenceMerger(folder) if reading.merge_references else None
        template = reading.prompt.template or ""
        self._requested |= {name for _, name, _, _ in Formatter().parse(template) if name}

    def decide(self, file: SourceFile, sample: list[RawRow]) -> DetectedFormat:
        """Return how the rows of a file are read."""
        return detect(self._reading, file, sample, self._key)

    def explain_pinning(self) -> str:
        """Return how to correct a wrong format decision."""
        format_names = ", ".join(item.name for item in FORMATS)
        return f"say what it is: {self._key}.format=<{format_names}>, or the columns: {self._key}.columns.prompt and .answer"

    def finish(self) -> SourceReport:
        """Write the merged examples, and close the account of the source.

        Raises  DataError when it held no rows, when all were rejected, when too many had another shape than they were read
                as, or when a declared field never occurred.
        """
        for example in self._references.iter_merged() if self._references is not None else ():
            self._write(example)
        self.require_sound()
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

    def make(self, row: RawRow, decision: DetectedFormat) -> None:
        """Build the record of one row and store it."""
        record = build_record(row, decision, self._reading, self._kind)
        self.keep(1)
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

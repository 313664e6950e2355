"""CSV and TSV: the dialect is detected from the first lines, then the file is read row by row."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Final, Literal

from tunectl.artifacts.records import RejectedRow, Source, truncate
from tunectl.artifacts.reject_reasons import RejectReason
from tunectl.config.schema.ingest import FileOptions
from tunectl.core import logging_setup
from tunectl.core.errors import DataError
from tunectl.data.readers.file_discovery import SourceFile
from tunectl.data.readers.row import RawRow
from tunectl.data.readers.text_reader import open_text_file

DELIMITERS = ",;\t|"
SAMPLE = 65536
"""Characters from which the dialect is detected."""
_REREAD: Final = 10
"""How often lines are read again, on average: one broken quote may take as many lines with it as there are."""
_EXCEL = re.compile(r"sep=([,;\t|])[ ,;]*(?:\r\n|\r|\n)", re.IGNORECASE)
"""The line with which Excel declares the delimiter."""
Quotes = Literal["doubled", "escaped", "plain"]
_log = logging_setup.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CsvDialect:
    """Delimiter and quoting of a CSV file, as detected."""

    delimiter: str
    quotes: Quotes
    """How quotes inside a quoted cell are escaped: doubled, or with a backslash; plain: quotes have no meaning."""

    def __str__(self) -> str:
        """Return the dialect as text, for the log."""
        names = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
        quotes = {
            "doubled": "doubled quotes",
            "escaped": "quotes after a backslash",
            "plain": "quotes as plain characters",
        }
        return f"{names[self.delimiter]} between cells, {quotes[self.quotes]}"

    def reader(self, lines: Iterable[str]) -> Iterator[list[str]]:
        """Yield the cells of each row of ``lines``."""
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            doublequote=self.quotes == "doubled",
            escapechar="\\" if self.quotes == "escaped" else None,
            quoting=csv.QUOTE_NONE if self.quotes == "plain" else csv.QUOTE_MINIMAL,
            strict=True,
        )


def detect_dialect(sample: str, *, among: str = DELIMITERS) -> CsvDialect:
    """Return the dialect detected from the first characters of a table; ``among`` holds the possible delimiters.

    The dialect is chosen for which most lines of the sample belong to rows as wide as the header; common dialects are tried first. A
    table of one column has commas and doubled quotes.
    """
    styles: tuple[Quotes, ...] = ("doubled", "escaped", "plain") if '\\"' in sample else ("doubled", "plain")
    best = CsvDialect(among[0], "doubled")
    best_score = 0.0
    for quotes in styles:
        for delimiter in among:
            score = _agreement(CsvDialect(delimiter, quotes), sample)
            if score > best_score:
                best, best_score = CsvDialect(delimiter, quotes), score
    return best


def _agreement(dialect: CsvDialect, sample: str) -> float:
    """Return the share of the rows with the header's number of cells, if that is more than one; lines with broken quoting count as rows."""
    lines = list(io.StringIO(sample, newline=""))  # as the file is split, not at every Unicode line end
    if len(sample) >= SAMPLE and len(lines) > 1:
        lines.pop()  # cut off
    widths: list[int] = []
    lines_read = 0
    table = PushbackLines(lines)
    try:
        for cells in dialect.reader(table):
            lines_read = table.passed
            if cells:
                widths.append(len(cells))
    except csv.Error:  # one style does not suit; or the sample ends inside a quoted cell
        pass
    if not widths or widths[0] < 2:
        return 0.0
    return Counter(widths)[widths[0]] / (len(widths) + len(lines) - lines_read)


class PushbackLines(Iterator[str]):
    """Iterator over lines that can be put back, so that one broken quote does not consume the rows after it."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._back: deque[str] = deque()
        self.lines: list[str] = []
        """Lines read since the last ``start``."""
        self.passed = 0
        self.most = inf
        """Letters of a row; more are a quote that was left open."""
        self._size = 0
        self._credit = _REREAD * SAMPLE
        """Letters that may still be read again."""

    def __next__(self) -> str:
        """Return the next line."""
        if self._back:
            line = self._back.popleft()
        else:
            line = next(self._lines)
            self._credit += _REREAD * len(line)
        self.lines.append(line)
        self.passed += 1
        self._size += len(line)
        if self._size > self.most and len(self.lines) > 1:
            raise csv.Error("a quote is opened and never closed")
        return line

    def start(self) -> None:
        """Forget the lines read so far: a new row begins."""
        self.lines.clear()
        self._size = 0

    def put_back(self) -> list[str]:
        """Put back the lines read since ``start`` except the first, and return that one in a list.

        Where too many lines were read again already, all are returned and none is put back: this bounds the time.
        """
        self._credit -= self._size
        kept_count = 1 if self._credit >= 0 else len(self.lines)
        lines, rest = self.lines[:kept_count], self.lines[kept_count:]
        self._back.extendleft(reversed(rest))
        self.lines.clear()
        return lines


def read_table(file: SourceFile, options: FileOptions) -> Iterator[RawRow | RejectedRow]:
    """Yield the rows of a CSV or TSV file; row 1 is the first after the header.

    Raises  DataError when the header cannot be read or names a column twice.
    """
    with open_text_file(file, options.encoding, newline="") as stream:
        sample = stream.read(SAMPLE)
    match = _EXCEL.match(sample)
    if match is not None:
        sample = sample[match.end() :]
    dialect = detect_dialect(sample, among=match[1] if match else "\t" if file.type == "tsv" else DELIMITERS)
    _log.info("%s: %s", file.name, dialect)
    csv.field_size_limit(min(options.limits.max_characters, 2**31 - 1))
    with open_text_file(file, options.encoding, newline="") as stream:
        if match is not None:
            stream.readline()
        yield from rows(dialect, stream, file.name)


def rows(dialect: CsvDialect, lines: Iterable[str], name: str) -> Iterator[RawRow | RejectedRow]:
    """Yield the rows of a table's lines, each with the names of the header.

    A row with another number of cells is rejected as ``wrong_cell_count``, one with a cell over the limit as ``too_long``, one with
    broken quoting as ``broken_quotes``; after that the next line begins a new row. Where most rows are broken, each line is rejected.
    """
    table = PushbackLines(lines)
    cells_of = dialect.reader(table)
    header = _header(cells_of, name)
    table.most = len(header) * (2 * csv.field_size_limit() + 3)  # each letter of a cell may be a doubled quote
    number = 0
    while True:
        table.start()
        try:
            cells = next(cells_of, None)
        except csv.Error as error:
            # A cell over the limit on a line of its own is what it seems; over many lines a quote was left open.
            is_long = "field limit" in str(error) and len(table.lines) == 1
            reason: RejectReason = "too_long" if is_long else "broken_quotes"
            detail = f"a cell is longer than limits.max_characters, {csv.field_size_limit()}" if is_long else str(error)
            for line in table.put_back():
                number += 1
                yield RejectedRow(Source(name, number), reason, detail, truncate(line))
            continue
        if cells is None:
            return
        if not cells:  # a blank line is not a row
            continue
        number += 1
        if len(cells) == len(header):
            yield RawRow(Source(name, number), dict(zip(header, cells, strict=True)))
            continue
        detail = f"{len(cells)} cells, the header has {len(header)}"
        yield RejectedRow(Source(name, number), "wrong_cell_count", detail, truncate(dialect.delimiter.join(cells)))


def _header(table: Iterator[list[str]], name: str) -> list[str]:
    try:
        cells = next((row for row in table if row), None)
    except csv.Error as error:
        raise DataError(
            f"{name}: the header is malformed: {error}", hint="correct the first line: it must name the columns"
        ) from error
    header = [cell.strip() or f"column_{index}" for index, cell in enumerate(cells or [], 1)]
    twice = [cell for cell, count in Counter(header).items() if count > 1]
    if twice:
        raise DataError(f"{name}: the header names {', '.join(twice)} twice", hint="rename one of the columns")
    return header

"""Index of a file of rows: where each line begins, and the fields that people filter by, so that a page of 50 among 100,000 is read at once.

The index is built in one pass, kept in memory while the file is unchanged, and takes some ten bytes per row.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec import Struct

from tunectl.console.read_context import ReadContext, stamp_files
from tunectl.core.errors import DataError
from tunectl.pipeline import lineage_trace

NAMES: Final = {"role"}
"""Keys of a record whose values nobody wrote."""
NO_FIELDS: Final[Mapping[str, str]] = MappingProxyType({})


class _Facet(Struct, frozen=True):
    file: str = ""


class _Line(Struct, frozen=True):
    """The fields of a line that the index needs."""

    source: _Facet | None = None
    reason: str = ""
    kind: str = ""


class _Fields(Struct, frozen=True):
    fields: dict[str, str] = {}


class RowIndex:
    """Index of one JSONL file of rows: where each line begins, its reason or kind, and its raw file."""

    def __init__(self, path: Path) -> None:
        """Read ``path`` once.

        Raises  DataError for a line that is not a JSON object.
        """
        self.path = path
        self._starts = array("Q")
        self._reasons, self._sources = array("H"), array("H")
        self._names: dict[str, int] = {}
        decoder = msgspec.json.Decoder(_Line)
        at = 0
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    facts = decoder.decode(line)
                except msgspec.MsgspecError as error:
                    raise DataError(
                        f"{path}:{number} is not a record: {error}",
                        hint=f"run again: tunectl repro --force --to {path.parent.name}",
                    ) from error
                self._starts.append(at)
                self._reasons.append(self._number(facts.reason or facts.kind))
                self._sources.append(self._number(facts.source.file if facts.source else ""))
                at += len(line)
        self._starts.append(at)

    def _number(self, name: str) -> int:
        """Return the number of a name; all names after the first 65,000 share one."""
        if name not in self._names:
            self._names[name] = min(len(self._names), 65_535)
        return self._names[name]

    def __len__(self) -> int:
        """Return how many lines there are."""
        return len(self._starts) - 1

    def count_labels(self) -> list[tuple[str, int]]:
        """Return (reason of a reject or kind of a row, number of lines), most first."""
        return self._count(self._reasons)

    def count_sources(self) -> list[tuple[str, int]]:
        """Return (raw file, number of lines), most first."""
        return self._count(self._sources)

    def _count(self, numbers: Sequence[int]) -> list[tuple[str, int]]:
        names = {number: name for name, number in self._names.items()}
        return [(names[number], count) for number, count in Counter(numbers).most_common() if names[number]]

    def select(
        self, label: str = "", source: str = "", text: str = "", fields: Mapping[str, str] = NO_FIELDS
    ) -> Sequence[int]:
        """Return the line numbers, from 0, that pass all filters; an empty filter matches all.

        Args:
            label: Reject reason, or kind of a row.
            source: Raw file, or a folder of raw files.
            text: Part of a value, in capitals or not.
            fields: Whole values of fields of the row, by name; a reject has no fields.
        """
        lines: Sequence[int] = range(len(self))
        if fields:
            lines = list(self._search_fields(fields))
        if text and fields:  # few lines are left: only those are read
            lines = [line for line, row in zip(lines, self.read(lines), strict=True) if _has_text(row, text.casefold())]
        elif text:
            lines = list(self._search(text))
        if label:
            number = self._names.get(label)
            lines = [line for line in lines if self._reasons[line] == number]
        if source:
            inside = {number for name, number in self._names.items() if name == source or name.startswith(f"{source}/")}
            lines = [line for line in lines if self._sources[line] in inside]
        return lines

    def _search(self, text: str) -> Iterator[int]:
        """Yield lines that have ``text`` in one of their values, in capitals or not; lines without it are not decoded."""
        folded_text = text.casefold()
        needle = msgspec.json.encode(folded_text)[1:-1]
        with self.path.open("rb") as stream:
            offset = 0
            while block := stream.read(lineage_trace.BLOCK) + stream.readline():
                folded = _fold(block, text)  # of another length perhaps, but with the same number of lines
                line, counted = bisect_left(self._starts, offset), 0
                at = folded.find(needle)
                while at >= 0:
                    line += folded.count(b"\n", counted, at)
                    content = block[self._starts[line] - offset : self._starts[line + 1] - offset]
                    if _has_text(msgspec.json.decode(content), folded_text):
                        yield line
                    counted = folded.find(b"\n", at)
                    at = folded.find(needle, counted) if counted >= 0 else -1
                offset += len(block)

    def _search_fields(self, fields: Mapping[str, str]) -> Iterator[int]:
        """Yield lines whose row has these fields with these values; lines without the longest value are not decoded."""
        needle = msgspec.json.encode(max(fields.values(), key=len))
        decoder = msgspec.json.Decoder(_Fields)
        for offset, content in lineage_trace.find_lines(self.path, [needle]):
            if fields.items() <= decoder.decode(content).fields.items():
                yield bisect_left(self._starts, offset)

    def read(self, lines: Sequence[int]) -> list[dict[str, Any]]:
        """Return the rows of the lines with these numbers (from 0), decoded.

        Raises  DataError for a line that is not a JSON object.
        """
        rows: list[dict[str, Any]] = []
        with self.path.open("rb") as stream:
            for line in lines:
                stream.seek(self._starts[line])
                try:
                    rows.append(
                        msgspec.json.decode(
                            stream.read(self._starts[line + 1] - self._starts[line]), type=dict[str, Any]
                        )
                    )
                except msgspec.MsgspecError as error:
                    raise DataError(
                        f"{self.path}:{line + 1} is not a record: {error}",
                        hint=f"run again: tunectl repro --force --to {self.path.parent.name}",
                    ) from error
        return rows


def _fold(content: bytes, text: str) -> bytes:
    """Return JSON without capitals; letters beyond ASCII cost time, so they are looked at where ``text`` has some."""
    return content.lower() if text.isascii() else content.decode(errors="replace").casefold().encode()


def _has_text(value: Any, text: str) -> bool:
    if isinstance(value, dict):
        return any(_has_text(inner, text) for name, inner in value.items() if name not in NAMES)
    if isinstance(value, list):
        return any(_has_text(inner, text) for inner in value)
    return isinstance(value, str) and text in value.casefold()


def open_index(context: ReadContext, path: Path) -> RowIndex | None:
    """Return the index of a file of rows, built once while it is unchanged; None where the file is absent."""
    stamp = stamp_files([path])
    return context.cache.get(f"rows {path}", stamp, lambda: RowIndex(path)) if stamp else None

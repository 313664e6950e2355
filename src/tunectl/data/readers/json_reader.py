"""Read JSON files and JSON lines row by row."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from tunectl.artifacts.records import RejectedRow, Source, truncate
from tunectl.config.schema.ingest import FileOptions, RowLimits
from tunectl.core.errors import DataError
from tunectl.core.json_depth import exceeds_depth
from tunectl.data.readers.file_discovery import SourceFile
from tunectl.data.readers.row import RawRow, kind
from tunectl.data.readers.text_reader import open_text_file

_OPENING = ("[", "{", "[{")
_LISTS = ("[{", '["')
_BLANKS = re.compile(r"\s*")
_CONSTANT = re.compile(r'"(?:[^"\\]++|\\.)*+"?|(?<![\w.])(?:NaN|-?Infinity)\b', re.DOTALL)
"""A string, or a number that Python writes and JSON lacks."""
_MARK = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)
"""A string, or what begins, ends or separates values."""
_ROW_BYTES: Final = 32
"""Bytes of a row for each of ``limits.max_characters``: eight texts of four bytes a letter, as in tables of other formats."""
_FEW_VALUES: Final = 100_000
"""Values of a file that are never too many: keys of a row and turns of a conversation count as values, too."""
_MAX_DEPTH: Final = 100
"""Limit on nested lists and objects of a row; far below the recursion limit of what writes it."""


def read_json_lines(file: SourceFile, options: FileOptions) -> Iterator[RawRow | RejectedRow]:
    """Yield one row per line; row numbers are line numbers, blank lines are not rows.

    A line that is not JSON is rejected as ``not_json``, one that is not an object as ``not_an_object``. A list, or objects over
    several lines, are read as ``read_json`` does: such files often have this name.
    """
    if _spread(file, options):
        yield from read_json(file, options)
        return
    decoder = msgspec.json.Decoder()
    with open_text_file(file, options.encoding, newline="\n") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield _row(decoder, line, Source(file.name, number), options.limits)


def _spread(file: SourceFile, options: FileOptions) -> bool:
    """Return whether the first line that is not blank opens an object or a list without closing it, or is a whole list."""
    with open_text_file(file, options.encoding, newline="\n") as stream:
        first = next((line.strip() for line in stream if line.strip()), "")
        rest = next((line for line in stream if line.strip()), None)
    if rest is None:
        return first[:2] in _LISTS
    return first in _OPENING or (first[:2] in _LISTS and first[-1:] == ",")


def _row(
    decoder: msgspec.json.Decoder[Any], text: str | msgspec.Raw, source: Source, limits: RowLimits
) -> RawRow | RejectedRow:
    raw = text.encode(errors="replace") if isinstance(text, str) else bytes(text)
    most = _ROW_BYTES * limits.max_characters
    if len(raw) > most:  # before it is decoded, which takes up to 20 times as much memory
        detail = f"the row has {len(raw)} bytes, the most is {most}; raise limits.max_characters of the source"
        return RejectedRow(source, "too_long", detail, truncate(_decode_raw(text)))
    if exceeds_depth(raw, _MAX_DEPTH):
        detail = f"the row nests deeper than {_MAX_DEPTH} levels"
        return RejectedRow(source, "not_json", detail, truncate(_decode_raw(text)))
    try:
        value = decoder.decode(_without_constants(text) if isinstance(text, str) else text)
    except (msgspec.DecodeError, RecursionError) as error:
        return RejectedRow(source, "not_json", str(error), truncate(_decode_raw(text)))
    if isinstance(value, dict):
        return RawRow(source, value)
    if isinstance(value, str):
        return RawRow(source, {"text": value})
    return RejectedRow(source, "not_an_object", f"the row is {kind(value)}", truncate(_decode_raw(text)))


def _without_constants(text: str) -> str:
    """Return JSON with null in place of NaN and infinite numbers, which Python writes for a missing number."""
    if "NaN" not in text and "Infinity" not in text:
        return text
    return _CONSTANT.sub(lambda match: match[0] if match[0].startswith('"') else "null", text)


def _decode_raw(text: str | msgspec.Raw) -> str:
    return text if isinstance(text, str) else bytes(text)[:2000].decode(errors="replace")


def read_json(file: SourceFile, options: FileOptions) -> Iterator[RawRow | RejectedRow]:
    """Yield the objects of a JSON file: of its list, of the only list inside its object, or that object; row numbers count from 1.

    The whole text is in memory, its rows are decoded one by one. A file that holds JSON lines is read as JSON lines.
    A file that is not JSON gives one reject, ``not_json``.
    Raises  DataError where it has more rows than ``limits.max_rows``, which take up to 40 times its size in memory.
    """
    with open_text_file(file, options.encoding, newline="") as stream:
        text = stream.read()
    if not text.strip():
        return
    most = max(options.limits.max_rows, _FEW_VALUES)
    if _holds_more(text, most):
        raise DataError(
            f"{file.name} holds more than {most} values, the most that limits.max_rows = {options.limits.max_rows} allows",
            hint="raise the limit, or write it as JSON lines, of which one is in memory at a time",
        )
    try:
        items = _items(_without_constants(text))
    except (msgspec.DecodeError, RecursionError) as error:
        objects = None if _looks_like_lines(text) else _objects_in(text)
        if _looks_like_lines(text):
            yield from read_json_lines(file, options)
        elif objects is not None:
            yield from _rows(objects, file.name, options.limits)
        else:
            yield RejectedRow(Source(file.name), "not_json", str(error), truncate(text))
        return
    yield from _rows(items, file.name, options.limits)


def _holds_more(text: str, most: int) -> bool:
    """Return whether JSON has more than ``most`` values one after the other, or in one of its outer two layers of lists and objects."""
    if text.count(",") + text.count("\n") + text.count("}") <= most:
        return False
    depth = 0
    counts = [0, 0, 0]
    for match in _MARK.finditer(text):
        sign = match[0]
        if sign == ",":
            if depth > 2:
                continue
            counts[depth] += 1
        elif sign in ("[", "{"):
            depth += 1
            if depth > 2:
                continue
            counts[depth] = 1
        elif sign in ("]", "}"):
            depth = max(0, depth - 1)
            if depth:
                continue
            counts[0] += 1
        else:
            continue
        if counts[depth] > most:
            return True
    return False


def _rows(items: Iterable[str | msgspec.Raw], name: str, limits: RowLimits) -> Iterator[RawRow | RejectedRow]:
    decoder = msgspec.json.Decoder()
    for number, item in enumerate(items, 1):
        yield _row(decoder, item, Source(name, number), limits)


def _objects_in(text: str) -> list[str] | None:
    """Return the texts of objects one after the other, each over any number of lines; None for anything else."""
    decoder = json.JSONDecoder()
    objects: list[str] = []
    position = _end_of_blanks(text, 0)
    while position < len(text):
        try:
            item, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            return None
        if not isinstance(item, dict):
            return None
        objects.append(text[position:end])
        position = _end_of_blanks(text, end)
    return objects


def _end_of_blanks(text: str, position: int) -> int:
    match = _BLANKS.match(text, position)
    return position if match is None else match.end()


def _items(text: str) -> list[msgspec.Raw]:
    if text.lstrip()[:1] == "[":
        return msgspec.json.decode(text, type=list[msgspec.Raw])
    content = msgspec.json.decode(text, type=dict[str, msgspec.Raw] | msgspec.Raw)
    if isinstance(content, dict):
        lists = [bytes(value) for value in content.values() if bytes(value)[:1] == b"["]
        rows = [
            items
            for value in lists
            if (items := msgspec.json.decode(value, type=list[msgspec.Raw])) and _objects(items)
        ]
        if len(rows) == 1 and not _is_row(content):
            return rows[0]
        return [msgspec.Raw(text.encode())]
    return [content]


def _objects(items: list[msgspec.Raw]) -> bool:
    return all(bytes(item)[:1] == b"{" for item in items)


def _is_row(content: dict[str, msgspec.Raw]) -> bool:
    """Return whether an object is itself a conversation and not a wrapper around rows."""
    return bool({"messages", "conversations", "conversation", "segments", "input", "request"} & set(content))


def _looks_like_lines(text: str) -> bool:
    first, _, rest = text.lstrip().partition("\n")
    try:
        return isinstance(msgspec.json.decode(first), dict) and bool(rest.strip())
    except (msgspec.DecodeError, RecursionError):
        return False

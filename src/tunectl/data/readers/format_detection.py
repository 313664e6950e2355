"""Detect the format of a file from its first rows; a wrong decision is an error that shows a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial
from string import Formatter
from typing import Literal, NamedTuple

from tunectl.artifacts.records import truncate
from tunectl.config.schema.ingest import RowOptions
from tunectl.core.errors import DataError
from tunectl.data.formats import instruction
from tunectl.data.formats.format_registry import (
    InstructionFormat,
    UnsupportedFormat,
    case_insensitive_match,
    detect_format,
    find,
)
from tunectl.data.readers.file_discovery import TABLES, SourceFile
from tunectl.data.readers.row import ParsedRow, RawRow, RowError, as_json, format_column_names, lower

Holds = Literal["documents", "examples"]
SAMPLE_ROWS = 100
"""Number of rows from which the format is detected."""
SHOWN = 300
"""Characters of a wrong row that a message shows."""


class DetectedFormat(NamedTuple):
    """Format of a file's rows, as detected or set: how they are parsed, and what decided it."""

    type: str
    format: str
    holds: Holds
    why: str
    """For people: the columns that decided, or that the format was set."""
    expects: str
    """Description of the format's columns."""
    parse: Callable[[RawRow], ParsedRow]
    unused: tuple[str, ...] = ()
    """Columns of the first row that are not read; for tables only."""


def detect(options: RowOptions, file: SourceFile, sample: Sequence[RawRow], key: str) -> DetectedFormat:
    """Return the format of a file's rows, detected from its first ones or as set. ``key`` is the source's dotted key, for messages.

    Raises  DataError when the columns fit no format, fit preferences, or contradict ``holds``; it shows the first row.
    """
    kind = file.type or "rows"
    pins = options.columns
    if pins.text is not None or pins.prompt is not None:
        holds: Holds = "documents" if pins.text is not None and options.holds != "examples" else "examples"
        columns = [name for name in (*(pins.text or ()), *(pins.prompt or ()), pins.answer) if name]
        column_names = ", ".join(columns)
        unused = _find_unused_columns(sample, options, [*columns, *filter(None, [pins.system])])
        return DetectedFormat(
            kind,
            "columns",
            holds,
            f"pinned: {column_names}",
            column_names,
            partial(instruction.parse_declared_columns, columns=pins),
            unused,
        )
    if options.format != "auto":
        return _decision(options, kind, find(options.format), "pinned", sample, key)
    if file.type not in TABLES and file.type is not None:
        page = _decision(options, kind, find("text"), f"kind of file: {file.type}", sample, key)._replace(unused=())
        return page._replace(parse=_not_an_example) if page.holds == "examples" else page
    has_text = options.holds == "documents" and bool(sample) and "text" in sample[0].columns
    result = find("text") if has_text else _likeliest(sample, key, options)
    reason = f"columns {format_column_names(sample[0].columns)}" if sample else "no rows"
    return _decision(options, kind, result, reason, sample, key)


def _find_unused_columns(sample: Sequence[RawRow], options: RowOptions, used: Collection[str]) -> tuple[str, ...]:
    if not sample:
        return ()
    template = (name for _, name, _, _ in Formatter().parse(options.prompt.template or "") if name)
    used_names = {*used, *options.fields.values(), *template, options.columns.split or "split"}
    roots = used_names | {name.partition(".")[0] for name in used_names}
    return tuple(name for name in sample[0].columns if name not in roots)


def _not_an_example(row: RawRow) -> ParsedRow:
    """Return whether a row is a page among examples, say a README, which must not be trained on by accident."""
    raise RowError("not_an_example", f"{row.source.location} is raw text; set format: text to learn from it as it is")


def _likeliest(sample: Sequence[RawRow], key: str, options: RowOptions) -> InstructionFormat:
    """Return the format of most rows of the sample."""
    if not sample:
        return find("text")
    detected = _most([detect_format(row.columns) for row in sample])
    if detected is None:
        detected = _most([detect_format(lower(row.columns)) for row in sample])
        detected = case_insensitive_match(detected) if isinstance(detected, InstructionFormat) else detected
    if detected is None:
        raise _unknown(sample[0], key, options)
    if isinstance(detected, UnsupportedFormat):
        first = next(
            row for row in sample if detected in (detect_format(row.columns), detect_format(lower(row.columns)))
        )
        raise _build_unsupported_error(detected, first, key)
    return detected


def _most(formats: list[InstructionFormat | UnsupportedFormat | None]) -> InstructionFormat | UnsupportedFormat | None:
    counts = Counter(item for item in formats if item is not None)
    return max(counts, key=lambda item: counts[item]) if counts else None


def _decision(
    options: RowOptions, kind: str, format_: InstructionFormat, reason: str, sample: Sequence[RawRow], key: str
) -> DetectedFormat:
    natural: Holds = "documents" if format_.name == "text" else "examples"
    if options.holds == "documents" and natural == "examples":
        example_row = f"\n    {truncate_row(sample[0])}" if sample else ""
        raise DataError(
            f"{key}: holds is documents, but {sample[0].source.location if sample else 'the rows'} looks like {format_.name} ({reason}){example_row}",
            hint=f"let holds be examples, or say where the text is: {key}.columns.text=[<column>]",
        )
    holds: Holds = "examples" if options.holds == "examples" else natural
    unused = _find_unused_columns(sample, options, format_.uses(sample[0].columns) if sample else ())
    return DetectedFormat(kind, format_.name, holds, reason, format_.expects, format_.parse, unused)


def truncate_row(row: RawRow) -> str:
    """Return the beginning of a row as text, for messages."""
    return truncate(as_json(row.columns), SHOWN)


def _unknown(row: RawRow, key: str, options: RowOptions) -> DataError:
    columns = [name for name, value in row.columns.items() if _is_input_or_answer(value)]
    first, second = (columns[0], columns[1]) if len(columns) > 1 else ("<input>", "<answer>")
    pairs = f"{key}.columns.prompt=[{first}] {key}.columns.answer={second}"
    text = f"{key}.columns.text=[<column>]"
    choices = {"documents": text, "examples": pairs, "auto": f"{pairs}; or for raw text: {text}"}
    return DataError(
        f"{key}: the columns of {row.source.location} fit no format that is known: {format_column_names(row.columns)}\n    {truncate_row(row)}",
        hint=f"say which columns they are: {choices[options.holds]}",
    )


def _is_input_or_answer(value: object) -> bool:
    """Return whether a value may be an input or an answer, and is not only the number of its row."""
    return isinstance(value, str) and bool(value.strip()) and not value.strip().isdigit()


def _build_unsupported_error(format_: UnsupportedFormat, row: RawRow, key: str) -> DataError:
    accepted_text = (
        "ingest takes documents and examples; prompts to practice on are not among them yet"
        if format_.name == "prompt_only"
        else "ingest takes documents and examples; preferences are declared in a section of their own: preferences.sources"
    )
    input_column = next(
        (name for name in ("instruction", *instruction.INPUTS) if row.columns.get(name) is not None), None
    )
    liked = next((name for name in ("chosen", "chosen_response") if row.columns.get(name) is not None), None)
    pins = f", or learn from its better answers: {key}.columns.prompt=[{input_column}] {key}.columns.answer={liked}"
    return DataError(
        f"{key}: {row.source.location} holds {format_.what}, which supervised tuning cannot learn from\n    {truncate_row(row)}",
        hint=f"{accepted_text}; take this source out of ingest.sources{pins if input_column and liked else ''}",
    )

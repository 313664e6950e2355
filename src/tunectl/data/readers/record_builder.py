"""Build a record from a parsed row: prompt text, fields, split, limits and an id computed from the content."""

from __future__ import annotations

from string import Formatter
from typing import Any, Literal

import msgspec

from tunectl.artifacts.records import Document, Example, Message, Segment
from tunectl.chat import tool_calls
from tunectl.config.schema.ingest import RowOptions
from tunectl.core.hashing import hash_to_id
from tunectl.data.readers.conversation import split_off_answer, with_last_user, with_system
from tunectl.data.readers.disk_buffer import input_digest
from tunectl.data.readers.format_detection import DetectedFormat
from tunectl.data.readers.row import ParsedRow, RawRow, RowError, get_column, missing_column, scalar

SPLITS: dict[str, Literal["train", "validation", "test"]] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "eval": "validation",
    "test": "test",
    "testing": "test",
}
"""Allowed values of a split column, in any case."""


def build_record(row: RawRow, decision: DetectedFormat, options: RowOptions, kind: str) -> Document | Example:
    """Return the document or example of one row; ``kind`` is the name of its source.

    Raises  RowError with one of the named reasons when the row must be rejected.
    """
    parsed = decision.parse(row)
    if decision.holds == "documents":
        return _document(row, parsed, options, kind)
    example = _example(row, parsed, options, kind)
    _check_length(_length(example), options)
    return msgspec.structs.replace(example, id=_example_id(example, merged=options.merge_references))


def _document(row: RawRow, parsed: ParsedRow, options: RowOptions, kind: str) -> Document:
    text = parsed.text or ""
    if not text.strip():
        raise RowError("no_text", "the text of the row is empty")
    _check_length(len(text), options)
    source = row.source
    return Document(digest("d", kind, source.file, source.row, text), text, source, kind, fields_of(row, options))


def _example(row: RawRow, parsed: ParsedRow, options: RowOptions, kind: str) -> Example:
    shared: dict[str, Any] = {
        "id": "",
        "source": row.source,
        "kind": kind,
        "fields": fields_of(row, options),
        "split": split_of(row, options),
        "tools": parsed.tools,
    }
    if parsed.text is not None:
        if not parsed.text.strip():
            raise RowError("no_text", "the text of the row is empty")
        return Example(segments=[Segment(parsed.text, train=True)], **shared)
    if parsed.segments or parsed.tokens is not None:
        return Example(segments=parsed.segments, tokens=parsed.tokens, **shared)
    messages, answers = split_off_answer(parsed.turns, parsed.answers)
    if options.prompt.template is not None and messages[-1].role == "user":
        messages = with_last_user(messages, apply_prompt_template(options.prompt.template, messages[-1], row))
    messages = with_system(messages, options.prompt.system)
    return Example(messages=messages, answers=[tool_calls.to_answer(turn, row.source) for turn in answers], **shared)


def apply_prompt_template(template: str, message: Message, row: RawRow) -> str:
    """Return ``message`` with its text put into a prompt template: ``{prompt}`` and columns of the row are replaced.

    Raises  FormatMismatchError when the row lacks a column.
    """
    pieces: list[str] = []
    for literal, name, _, _ in Formatter().parse(template):
        pieces.append(literal)
        if name is None:
            continue
        value = message.content if name == "prompt" else scalar(get_column(row.columns, name))
        if value is None:
            raise missing_column(row.columns, name, " for prompt.template")
        pieces.append(value)
    return "".join(pieces)


def fields_of(row: RawRow, options: RowOptions) -> dict[str, str]:
    """Return the values of the source's declared fields in this row, by field; blank ones are left out."""
    fields = {name: scalar(get_column(row.columns, column)) for name, column in options.fields.items()}
    return {name: value.strip() for name, value in fields.items() if value is not None and value.strip()}


def split_of(row: RawRow, options: RowOptions) -> Literal["train", "validation", "test"] | None:
    """Return the split that the row's split column declares; None where there is no such column or value."""
    return read_split(row, options.columns.split)


def read_split(row: RawRow, column: str | None) -> Literal["train", "validation", "test"] | None:
    """Return the split that a row's column names; ``column`` None: the column called ``split``, if its value is one.

    Raises  RowError ``unknown_split`` when the named column holds another value than train, validation or test.
    """
    label = scalar(get_column(row.columns, column or "split"))
    split = None if label is None else SPLITS.get(label.strip().lower())
    if column is not None and split is None:
        raise RowError(
            "unknown_split",
            f"column {column!r} says {'nothing' if label is None else repr(label[:80])}; known are {', '.join(SPLITS)}",
        )
    return split


def _check_length(characters: int, options: RowOptions) -> None:
    if characters > options.limits.max_characters:
        raise RowError(
            "too_long",
            f"the row has {characters} characters of text; raise limits.max_characters ({options.limits.max_characters})",
        )


def _length(example: Example) -> int:
    turns = sum(len(item.content) for item in example.messages)
    return turns + sum(len(item.text) for item in example.answers) + sum(len(item.text) for item in example.segments)


def _example_id(example: Example, *, merged: bool) -> str:
    input_hash = input_digest(example).hex()
    if merged and example.answers:
        return digest("e", example.kind, input_hash)
    answers = [answer.text for answer in example.answers]
    return digest("e", example.kind, input_hash, answers, example.source.file, example.source.row)


def digest(prefix: str, *parts: Any) -> str:
    """Return a short id: ``prefix``, a hyphen, and a hash of the content of ``parts``."""
    return f"{prefix}-{hash_to_id(*parts)}"

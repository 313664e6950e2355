"""A raw row, its parsed form, and the errors for which it is rejected."""

from __future__ import annotations

import math
from datetime import date, time
from difflib import get_close_matches
from typing import Any

import msgspec
from msgspec import Struct, field

from tunectl.artifacts.records import Message, Segment, Source, Tokens
from tunectl.artifacts.reject_reasons import RejectReason


class RawRow(Struct, frozen=True):
    """One row as a reader yields it: columns by name, and its place in the source. A page or flyer is a row with a ``text`` column."""

    source: Source
    columns: dict[str, Any]


class ParsedRow(Struct, frozen=True):
    """A row after parsing by its format. Exactly one is filled: ``text``, ``turns``, ``segments`` or ``tokens``."""

    text: str | None = None
    turns: list[Message] = field(default_factory=list)
    """The conversation; with ``answers`` it ends before the answer, without them the answer is its last turn."""
    answers: list[str] = field(default_factory=list)
    """References of one input."""
    segments: list[Segment] = field(default_factory=list)
    tokens: Tokens | None = None
    tools: list[dict[str, Any]] = field(default_factory=list)


class RowError(Exception):
    """Raised for a row that must be rejected: carries the reject reason and the detail."""

    def __init__(self, reason: RejectReason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class FormatMismatchError(RowError):
    """Raised for a row that does not fit the format with which it is read; many of them mean that the format is wrong."""

    def __init__(self, detail: str) -> None:
        super().__init__("wrong_columns", detail)


def get_column(columns: dict[str, Any], name: str) -> Any:
    """Return the value of a column, or of a nested one (``a.b``); None where it is absent."""
    if name in columns:
        return columns[name]
    value: Any = columns
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


def scalar(value: Any) -> str | None:
    """Return a text, number or boolean as text; None for null, NaN, lists and objects."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        is_whole = value.is_integer() and abs(value) < 2**53
        return None if math.isnan(value) else str(int(value)) if is_whole else repr(value)
    if isinstance(value, int):
        return str(value)
    return value.isoformat() if isinstance(value, (date, time)) else None


def text_of(columns: dict[str, Any], name: str) -> str:
    """Return the text of a required column; null is empty text.

    Raises  FormatMismatchError when the column is absent, or is a list or an object.
    """
    value = get_column(columns, name)
    if value is None and name in columns:
        return ""
    if value is None:
        raise missing_column(columns, name)
    text = scalar(value)
    if text is None:
        raise FormatMismatchError(f"column {name!r} holds {kind(value)}, not text")
    return text


def optional_text(columns: dict[str, Any], name: str) -> str | None:
    """Return the text of a column, or None where it is absent or blank."""
    text = scalar(get_column(columns, name))
    return text if text is not None and text.strip() else None


def parse_json_value(value: Any, name: str) -> Any:
    """Return ``value``, decoded where it is JSON in a string (as in CSV files); ``name`` is what the error calls it.

    Raises  FormatMismatchError when a string is not JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError) as error:
        raise FormatMismatchError(f"{name} is text that is not JSON: {error}") from error


def list_of(columns: dict[str, Any], name: str) -> list[Any]:
    """Return the list in a required column, also where it is JSON in a string.

    Raises  FormatMismatchError when the column is absent or holds something else.
    """
    value = get_column(columns, name)
    if value is None:
        raise missing_column(columns, name)
    items = parse_json_value(value, f"column {name!r}")
    if not isinstance(items, list):
        raise FormatMismatchError(f"column {name!r} holds {kind(items)}, not a list")
    return items


def object_of(value: Any, name: str) -> dict[str, Any]:
    """Return the object in ``value``, also where it is JSON in a string; ``name`` is what the error calls it.

    Raises  FormatMismatchError when it is something else.
    """
    parsed = parse_json_value(value, name)
    if not isinstance(parsed, dict):
        raise FormatMismatchError(f"{name} is {kind(parsed)}, not an object")
    return parsed


def missing_column(columns: dict[str, Any], name: str, wanted_by: str = "") -> FormatMismatchError:
    """Return the error for a missing column, with the existing names and the one that was probably meant."""
    lower = {column.lower(): column for column in columns}
    near = get_close_matches(name.lower(), list(lower), 1)
    meant = f"; did you mean {lower[near[0]]}?" if near else ""
    return FormatMismatchError(f"no column {name!r}{wanted_by}; there are {format_column_names(columns)}{meant}")


def lower(columns: dict[str, Any]) -> dict[str, Any]:
    """Return the columns with lower-case names without surrounding blanks; the first of equal names counts."""
    lowered: dict[str, Any] = {}
    for name, value in columns.items():
        lowered.setdefault(name.strip().lower(), value)
    return lowered


def format_column_names(columns: dict[str, Any]) -> str:
    """Return the column names for a message, at most twelve, separated by commas."""
    listed = ", ".join(list(columns)[:12])
    return listed + (f" and {len(columns) - 12} more" if len(columns) > 12 else "") if columns else "none"


def kind(value: Any) -> str:
    """Return the type of a value in words, for messages."""
    descriptions = {
        str: "text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return "nothing" if value is None else descriptions.get(type(value), type(value).__name__)


def as_json(columns: dict[str, Any]) -> str:
    """Return a row as one line of JSON, for people; values that JSON lacks are shown as text."""
    return msgspec.json.encode(columns, enc_hook=str).decode()

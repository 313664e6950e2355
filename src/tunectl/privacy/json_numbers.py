"""Quote the placeholders of numbers in JSON: a placeholder must be a string there, or the text is no JSON any more."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Final

from tunectl.privacy.spans import PiiSpan

_QUOTE = re.compile(r'(?<!\\)\\*+"')
_MAX_LAYERS: Final = 4
"""Most strings of JSON inside each other in which a placeholder is quoted: its marks take twice as many letters in each."""
_NEAR: Final = 64
"""Letters around a number within which its punctuation must be."""


def find_json_numbers(text: str, spans: Iterable[PiiSpan]) -> dict[int, str]:
    """Return the start of each of ``spans`` that is a JSON number, with the quotation mark to put around its placeholder.

    In JSON inside a JSON string the mark is escaped with backslashes. Empty where ``text`` is no JSON.
    """
    if text.lstrip()[:1] not in ("{", "[", '"'):
        return {}
    bare = [
        item
        for item in spans
        if text[item.start : item.end].replace(".", "", 1).isdigit() and _is_between_values(text, item)
    ]
    if not bare or not _is_json(text):
        return {}
    quotes = [(match.start(), match.end(), _level(len(match[0]) - 1)) for match in _QUOTE.finditer(text)]
    marks: dict[int, str] = {}
    holds_json: dict[int, bool] = {}
    opened: list[int] = []
    position = 0
    for item in bare:
        while position < len(quotes) and quotes[position][1] <= item.start:
            if quotes[position][2] == len(opened):
                opened.append(quotes[position][1])
            else:  # the end of a string of that layer, and of a mark in it that began nothing
                del opened[quotes[position][2] :]
            position += 1
        depth = len(opened)
        if depth > _MAX_LAYERS:
            continue
        if depth and opened[-1] not in holds_json:
            ends = (quotes[index][0] for index in range(position, len(quotes)) if quotes[index][2] == depth - 1)
            end = next(ends, len(text))
            holds_json[opened[-1]] = _is_json(text[opened[-1] : end], depth)
        if not depth or holds_json[opened[-1]]:
            marks[item.start] = "\\" * (2**depth - 1) + '"'
    return marks


def _is_between_values(text: str, span: PiiSpan) -> bool:
    before, after = text[max(0, span.start - _NEAR) : span.start], text[span.end : span.end + _NEAR]
    return before.rstrip()[-1:] in (":", "[", ",") and after.lstrip()[:1] in (",", "]", "}")


def _level(backslashes: int) -> int:
    """Return the nesting depth of a quotation mark that begins or ends a string: each layer doubles backslashes and adds one.

    Backslashes that belong to the string's own end come in multiples of the next power of two, so this is the number of ones
    at the end of the binary number.
    """
    return (~backslashes & (backslashes + 1)).bit_length() - 1


def _is_json(text: str, layers: int = 0) -> bool:
    """Return whether ``text`` is JSON, after it is decoded as the content of a string ``layers`` times."""
    try:
        for _ in range(layers):
            text = json.loads(f'"{text}"', strict=False)
        json.loads(text, strict=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True

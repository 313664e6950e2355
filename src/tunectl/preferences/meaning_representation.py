"""Read the attributes of an input, as names and values: from brackets in its text, or from declared fields."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

_VALUE = re.compile(r"\[([^\[\]]*)\]")
_NO_NAME = re.compile(r"[^\w -]")


class _Slot(NamedTuple):
    """An attribute in a text: its position, brackets included, and its value."""

    start: int
    end: int
    name: str
    value: str


def _slots(text: str) -> Iterator[_Slot]:
    """Yield attributes in their order: letters, digits, blanks and hyphens in front of a pair of brackets.

    Searched backwards from the brackets: forwards, every letter of a long text could begin a name.
    """
    end = 0
    for match in _VALUE.finditer(text):
        before = text[end : match.start()].rstrip()
        name = _NO_NAME.split(before)[-1].lstrip(" -")
        if name:
            yield _Slot(end + len(before) - len(name), match.end(), name, match[1])
        end = match.end()


def parse_mr(text: str) -> dict[str, str]:
    """Return attributes of a meaning representation such as ``name[The Vaults], eatType[pub]``; empty where there are none.

    Surrounding blanks are removed. The values of a name that occurs twice are sorted and joined to one value.
    Source of the form: Novikova, Dušek and Rieser (2017), "The E2E dataset", SIGDIAL.
    """
    result: dict[str, list[str]] = defaultdict(list)
    for slot in _slots(text):
        result[slot.name].append(slot.value.strip())
    return {name: " | ".join(sorted(values)) for name, values in result.items()}


def remove_attribute(text: str, name: str) -> str:
    """Return ``text`` without that attribute, its brackets and separator; unchanged where there is none of that name."""
    for slot in reversed([item for item in _slots(text) if item.name == name]):
        before, after = text[: slot.start], text[slot.end :]
        rest, lead = after.lstrip(), before.rstrip()
        if rest.startswith(_SEPARATORS):
            text = before + rest[1:].lstrip()
        else:
            text = (lead[:-1].rstrip() if lead.endswith(_SEPARATORS) else before) + after
    return text


_SEPARATORS = (",", ";")


def from_fields(fields: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Return those of the fields called ``names`` that are present and not empty."""
    return {name: value for name in names if (value := fields.get(name, "").strip())}

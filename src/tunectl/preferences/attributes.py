"""What an input is about, as names and values: read from brackets in its text, or from declared fields."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

_SEPARATOR = re.compile(r"^\s*[,;]\s*")
_LAST_SEPARATOR = re.compile(r"\s*[,;]\s*$")
_SLOT = re.compile(r"(\w[\w -]*?)\s*\[([^\[\]]*)\]")


def bracketed(text: str) -> dict[str, str]:
    """Attributes of a meaning representation such as ``name[The Vaults], eatType[pub]``; empty where there are none.

    Blanks at the ends do not count. A name that occurs twice has all its values, in sorted order, as one.
    Source of the form: Novikova, Dušek and Rieser (2017), "The E2E dataset", SIGDIAL.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for name, value in _SLOT.findall(text):
        found[name.strip()].append(value.strip())
    return {name: " | ".join(sorted(values)) for name, values in found.items()}


def without(text: str, name: str) -> str:
    """``text`` with that attribute taken out, brackets, separator and all; as it was where there is none of that name."""
    for found in reversed([one for one in _SLOT.finditer(text) if one[1].strip() == name]):
        before, after = text[: found.start()], text[found.end() :]
        rest = _SEPARATOR.sub("", after, count=1)
        text = before + rest if rest != after else _LAST_SEPARATOR.sub("", before) + after
    return text


def declared(fields: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """The declared fields that are there and not empty."""
    return {name: value for name in names if (value := fields.get(name, "").strip())}

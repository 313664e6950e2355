"""Attributes in brackets: what the code finds in one pass is what the pattern says that defines them."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from tunectl.preferences.meaning_representation import parse_mr, remove_attribute

SLOT = re.compile(r"(\w[\w -]*?)\s*\[([^\[\]]*)\]")
TEXTS = st.lists(
    st.sampled_from(["a", "b ", " ", "-", "[", "]", "[x]", ",", ";", "\n", "\t", "é", "_", "name", "\xa0"]), max_size=14
).map("".join)


@given(TEXTS)
def test_attributes_are_what_the_pattern_finds(text: str) -> None:
    found: dict[str, list[str]] = {}
    for name, value in SLOT.findall(text):
        found.setdefault(name.strip(), []).append(value.strip())
    assert parse_mr(text) == {name: " | ".join(sorted(values)) for name, values in found.items()}


@given(TEXTS, st.sampled_from(["a", "name", "b", "a-"]))
def test_an_attribute_is_taken_out_as_the_pattern_says(text: str, name: str) -> None:
    left = text
    for found in reversed([one for one in SLOT.finditer(text) if one[1].strip() == name]):
        before, after = left[: found.start()], left[found.end() :]
        rest = re.sub(r"^\s*[,;]\s*", "", after, count=1)
        left = before + rest if rest != after else re.sub(r"\s*[,;]\s*$", "", before) + after
    assert remove_attribute(text, name) == left

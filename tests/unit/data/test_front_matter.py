"""Front matter: the plain lines of it become columns, as the pattern says that defines them."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from tunectl.data.readers.text_reader import front_matter

PAIR = re.compile(r"([A-Za-z_][\w.-]*)[ \t]*:[ \t]*(.*?)[ \t]*\Z")
LINES = st.lists(
    st.sampled_from(["k", ":", " ", "\t", "x", "'", '"', "a-b", "\x0b", "\u2028", "\r", "k: v\n", "k:\n"]), max_size=12
).map("".join)


@given(LINES)
@example("k: v\nk:")
@example("k : 'two  words' \t")
def test_columns_are_what_the_pattern_finds(lines: str) -> None:
    pairs = [PAIR.match(line) for line in lines.splitlines()]
    told = {pair[1]: pair[2].strip("\"'") for pair in pairs if pair is not None and pair[2]}
    assert front_matter(f"---\n{lines}\n---\nText") == ("Text", told)

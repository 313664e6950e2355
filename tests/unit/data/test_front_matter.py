"""Front matter: its plain lines become columns, as the pattern that defines them says; text between rules is none."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tunectl.data.readers.text_reader import front_matter

PAIR = re.compile(r"([A-Za-z_][\w.-]*)[ \t]*:[ \t]*(.*?)[ \t]*\Z")
KEY = re.compile(r"(?:[^\W\d][\w.-]*|'[^']{1,64}'|\"[^\"]{1,64}\")[ \t]*:(?:[ \t]|\Z)")
LINES = st.lists(
    st.sampled_from(["k", ":", " ", "\t", "x", "'", '"', "a-b", "\x0b", "\u2028", "\r", "k: v\n", "k:\n"]), max_size=12
).map("".join)


@given(LINES)
@example("k: v\nk:")
@example("k : 'two  words' \t")
def test_columns_are_what_the_pattern_finds(lines: str) -> None:
    written = [line.rstrip() for line in lines.splitlines() if line.strip()]
    keys = [line for line in written if KEY.match(line)]
    likely = [line for line in written if KEY.match(line) or line[0] in " \t" or line[-1] == ":"]
    pairs = [PAIR.match(line) for line in lines.splitlines()]
    told = {pair[1]: pair[2].strip("\"'") for pair in pairs if pair is not None and pair[2]}
    text = f"---\n{lines}\n---\nText"
    is_yaml = not written or (keys and 2 * len(likely) >= len(written))
    assert front_matter(text) == (("Text", told) if is_yaml else (text, {}))


@pytest.mark.parametrize(
    ("front", "columns"),
    [
        ("title: A note", {"title": "A note"}),
        ("", {}),
        ("title: A note\ntags:\n  - cafes\n  - parks\n# by hand", {"title": "A note"}),
        ("tags:\n- cafes\n- parks\nsummary: >\n  Long,\n\n  very long.", {"summary": ">"}),
        ('"title": A note\ntítulo: Una nota', {"título": "Una nota"}),
        ("title: A note\nA line too much", {"title": "A note"}),
    ],
)
def test_a_front_matter_is_cut_off(front: str, columns: dict[str, str]) -> None:
    for end in ("\n", "\r\n"):
        text = f"---\n{front}\n---\nText".replace("\n", end)
        assert front_matter(text) == ("Text", columns)


@pytest.mark.parametrize(
    "section",
    [
        "The opening hours changed in May.\nWe open at nine.",
        "# Opening hours\n\nThey changed.",
        "- Cafes\n- Parks",
        "    indented = code",
        "Note: the hours changed.\nWe open at nine.\nWe close at six.",
        "https://example.org/hours",
        "At 9:30 we open:",
    ],
)
def test_a_section_between_two_rules_is_text(section: str) -> None:
    for text in (f"---\n{section}\n---\nMore text.", f"---\n{section}\n---"):
        assert front_matter(text) == (text, {})

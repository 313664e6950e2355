"""Patterns that take exponential time are told from ordinary ones, before they meet a text."""

from __future__ import annotations

import re
import time

import pytest

from tunectl.core.pattern_ambiguity import explain_ambiguity, validate_pattern

AMBIGUOUS = [
    r"(a+)+$",
    r"(a|a)*$",
    r"(?:a|a)+$",
    r"(\w+\s*)+$",
    r"(\s*\w+)*$",
    r"(a*)*b",
    r"^(([a-z])+.)+[A-Z]([a-z])+$",
    r"(.*a)+x",
    r"(?:\d{1,3}[ -]?)+$",
    r"((a{1,5}){1,5})+$",
    r"(?i:([A-Z]+[a-z]+)+)$",
    r"(x+x+)+y",
    r"(a|ab|b)*c",
]
ORDINARY = [
    r"https?://[^\s/$.?#]\S*",
    r"\d{4}-\d{2}-\d{2}",
    r"(?:\w+\.)+\w+",
    r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b",
    r"(?:\+?\d{1,3}[ .-]?)?\(?\d{3}\)?[ .-]?\d{3}[ .-]?\d{4}",
    r"(?:\d{1,3}\.){3}\d{1,3}",
    r"(?:\d{4}[ -]?){3}\d{4}",
    r"\w+(?:\s+\w+)*",
    r"(?:[-*] .*\n)+",
    r"(?:[A-Z][a-z]+)+",
    r"\$\s?\d{1,3}(?:,\d{3})*(?:\.\d{2})?",
    r"#[0-9a-fA-F]{6}\b",
    r"(?:yes|no|maybe)",
    r"\bcolou?rs?\b",
    r"(?:ha)+",
    r"[A-Za-z]+(?:['-][A-Za-z]+)*",
    r"<[a-z]+(?:\s+[a-z-]+=\"[^\"]*\")*\s*/?>",
    r'"(?:[^"\\]|\\.)*"',
    r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}",
    r"\d+(?:\.\d+)+",
    r"(?:\([^()]*\)|[^()])*",
    r"(?:[^,\n]*,)*[^,\n]*",
    r"\[(?:NAME|PHONE|EMAIL)_\d+\]",
    r"(?:1st|2nd|3rd|\d+th)",
    r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day",
    r"(?:\s*\d+\s*,)*\s*\d+",
    r"^(?!.*secret).*$",
    r"(?<!\w)(?:cheap|low[ -]priced)(?!\w)",
    r"/(?:[\w-]+/)*[\w-]*",
    r"(?:[a-z0-9]+-)*[a-z0-9]+",
    r"\{[^{}]*\}",
    r"(?:[01]?\d|2[0-3]):[0-5]\d",
    r"[\w-]{1,63}(?:\.[\w-]{1,63})+",
    r"<\|[\w.-]{1,40}\|>",
    r"(?:[\w-]{1,63}\.)+[a-z]{2,24}",
]
UNJUDGED = [r"(?:a(?!c)|a)+$", r"(?:\ba+)+$", r"(?:(?>a+)b?)+$", r"(a+)(?:\1b?)+$"]


@pytest.mark.parametrize("pattern", AMBIGUOUS)
def test_a_loop_that_reads_a_text_in_several_ways_is_refused_with_what_to_write(pattern: str) -> None:
    with pytest.raises(
        ValueError, match=r"takes exponential time: .* reads '.+' in several ways; write a\+ for \(a\+\)\+"
    ):
        validate_pattern(pattern)


@pytest.mark.parametrize("pattern", ORDINARY + UNJUDGED)
def test_ordinary_patterns_pass(pattern: str) -> None:
    assert validate_pattern(pattern) == pattern
    assert len(ORDINARY) > 30


def test_case_counts_where_it_is_ignored() -> None:
    assert not explain_ambiguity(r"(?:[A-Z]+[a-z]+)+$")
    assert explain_ambiguity(r"(?:[A-Z]+[a-z]+)+$", ignore_case=True)


def test_the_letters_that_it_names_are_read_in_several_ways() -> None:
    """The engine itself needs twice the time for each further round of them."""
    for pattern in (r"(a+)+$", r"(?:a|a)+$", r"(\w+\s*)+$", r"(?:\s?\w+)+$"):
        letters = re.search(r"reads '([^']+)'", explain_ambiguity(pattern))[1]
        seconds = []
        for rounds in (8, 12):
            begun = time.process_time()
            re.search(f"^(?:{pattern})", letters * rounds + "!\n!")
            seconds.append(time.process_time() - begun)
        assert seconds[1] > 4 * seconds[0], pattern


def test_long_patterns_are_judged_in_a_moment() -> None:
    begun = time.process_time()
    for pattern in (r"((a{1,64}){1,64}){1,64}", r"(?:[\w-]{1,63}\.)+" * 20, "|".join(f"word{n}s*" for n in range(500))):
        assert not explain_ambiguity(pattern)
    assert time.process_time() - begun < 5

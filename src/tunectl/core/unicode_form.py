"""Normalization forms of Unicode in linear time.

``unicodedata.normalize`` sorts combining marks by insertion, which takes minutes for some 100,000 of them behind one letter.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache, partial
from itertools import groupby
from typing import Final, Literal

NormalForm = Literal["NFC", "NFD", "NFKC", "NFKD"]
MANY_MARKS: Final = 1000
"""Combining marks behind one letter up to which they may be sorted in any way."""


def normalize(form: NormalForm, text: str) -> str:
    """Return ``unicodedata.normalize(form, text)``."""
    if text.isascii() or _has_short_runs(text):
        return unicodedata.normalize(form, text)
    decompose = partial(unicodedata.normalize, "NFKD" if "K" in form else "NFD")
    table = {letter: decompose(letter) for letter in set(text)}
    letters = "".join(map(table.__getitem__, text))
    ordered = (
        sorted(run, key=unicodedata.combining) if are_marks else run
        for are_marks, run in groupby(letters, key=_is_mark)
    )
    return unicodedata.normalize(form, "".join(letter for run in ordered for letter in run))


def _has_short_runs(text: str) -> bool:
    """Return whether no letter can have more than ``MANY_MARKS`` marks: the text has short words, or few marks, as Chinese."""
    if max(map(len, text.split(" "))) <= MANY_MARKS:
        return True
    return sum(map(text.count, filter(_begins_with_mark, set(text)))) <= MANY_MARKS


@lru_cache(maxsize=65_536)
def _begins_with_mark(letter: str) -> bool:
    """Return whether the letter may lengthen a run of marks; others, such as é, begin a new one."""
    return _is_mark(unicodedata.normalize("NFKD", letter)[0])


def _is_mark(letter: str) -> bool:
    return unicodedata.combining(letter) != 0

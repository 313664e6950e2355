"""Normalization forms of Unicode in linear time.

``unicodedata.normalize`` sorts combining marks by insertion, which takes minutes for some 100,000 of them behind one letter.
"""

from __future__ import annotations

import unicodedata
from functools import partial
from itertools import groupby
from typing import Final, Literal

NormalForm = Literal["NFC", "NFD", "NFKC", "NFKD"]
LONGEST_WORD: Final = 1000
"""Letters between two blanks up to which the marks among them may be sorted in any way; also longer is text without blanks, as Chinese."""


def normalize(form: NormalForm, text: str) -> str:
    """Return ``unicodedata.normalize(form, text)``."""
    if text.isascii() or max(map(len, text.split(" "))) <= LONGEST_WORD:
        return unicodedata.normalize(form, text)
    decompose = partial(unicodedata.normalize, "NFKD" if "K" in form else "NFD")
    table = {letter: decompose(letter) for letter in set(text)}
    letters = "".join(map(table.__getitem__, text))
    ordered = (
        sorted(run, key=unicodedata.combining) if are_marks else run
        for are_marks, run in groupby(letters, key=_is_mark)
    )
    return unicodedata.normalize(form, "".join(letter for run in ordered for letter in run))


def _is_mark(letter: str) -> bool:
    return unicodedata.combining(letter) != 0

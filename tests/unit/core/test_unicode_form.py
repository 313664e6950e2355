"""Normalization gives what Python gives, and takes no longer for a text of nothing but marks."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunectl.config.schema.curate import Repair
from tunectl.core import unicode_form
from tunectl.data.filters import repair
from tunectl.data.split import groups
from tunectl.evaluation import slot_error

MARKS = "\u0301\u0323\u0344\u0f73\u3099\uff9e\u093c"
NFC = Repair(mojibake=False, html=False, control_characters=False, unicode_form="NFC", white_space=False)
FORMS = ("NFC", "NFD", "NFKC", "NFKD")


@given(st.text(st.one_of(st.sampled_from(f"aé각ﬁ ﷺ{MARKS}"), st.characters(exclude_categories=["Cs"])), max_size=40))
def test_it_is_what_python_gives(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unicode_form, "MANY_MARKS", -1)
        for form in FORMS:
            assert unicode_form.normalize(form, text) == unicodedata.normalize(form, text)


@pytest.mark.parametrize("marks", ["\u0301 \u0323", "\u0301 \uff9e", "\u0f73 \u0f73"])
def test_marks_in_any_order_take_linear_time(marks: str) -> None:
    first, last = marks.split()
    text = "a" + first * 60_000 + last * 60_000
    for form in FORMS:
        start = time.process_time()
        unicode_form.normalize(form, text)
        assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "use",
    [
        lambda text: repair.RepairText(NFC, mojibake=str)._repair_text(text, "document"),
        groups.split_words,
        slot_error.normalize,
    ],
    ids=["repair", "split", "slot_error"],
)
def test_one_letter_with_many_marks_holds_up_nobody(use: Callable[[str], object]) -> None:
    start = time.process_time()
    use("a" + "\u0301" * 60_000 + "\u0323" * 60_000)
    assert time.process_time() - start < 2

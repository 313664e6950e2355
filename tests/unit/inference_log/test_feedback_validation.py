"""What feedback may say."""

from __future__ import annotations

from typing import Any

import pytest

from tunectl.core.errors import DataError
from tunectl.inference_log import feedback_validation

PREFERENCE = 'allowed is {"other": another inference, "choice": first | second | both_good | both_bad}'


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("thumb", "up"),
        ("rating", 5),
        ("rating", 4.5),
        ("preference", {"other": "chatcmpl-2", "choice": "first"}),
        ("preference", {"other": "chatcmpl-2", "choice": "both_bad"}),
        ("click", None),
        ("click", "book a table"),
        ("conversion", 0),
        ("conversion", None),
        ("edit", "A better answer."),
    ],
)
def test_what_each_kind_may_say(kind: str, value: Any) -> None:
    assert feedback_validation.validate_feedback(kind, value) == kind


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("thumb", "sideways", 'value of thumb is str; allowed is "up" or "down"'),
        ("thumb", True, 'value of thumb is True; allowed is "up" or "down"'),
        ("rating", 6, "value of rating is 6; allowed is a number from 1 to 5"),
        ("rating", True, "value of rating is True; allowed is a number from 1 to 5"),
        ("rating", float("nan"), "value of rating is nan; allowed is a number from 1 to 5"),
        ("preference", {"other": "chatcmpl-2", "choice": "skip"}, f"value of preference is dict; {PREFERENCE}"),
        ("preference", {"other": "x" * 101, "choice": "first"}, f"value of preference is dict; {PREFERENCE}"),
        ("preference", "first", f"value of preference is str; {PREFERENCE}"),
        ("click", "x" * 201, "value of click is str; allowed is a text of up to 200 characters, or null"),
        ("conversion", -1, "value of conversion is -1; allowed is a number of 0 or more, or null"),
        ("conversion", 10**400, "value of conversion is int; allowed is a number of 0 or more, or null"),
        ("edit", " \n", "value of edit is str; allowed is a text of 1 to 100000 characters"),
        ("star", 1, "kind = 'star'; allowed are thumb, rating, preference, click, conversion, edit"),
    ],
)
def test_what_it_may_not(kind: str, value: Any, text: str) -> None:
    with pytest.raises(DataError) as caught:
        feedback_validation.validate_feedback(kind, value)
    assert caught.value.message == text


def test_an_answer_is_not_preferred_to_itself() -> None:
    value = {"other": "chatcmpl-1", "choice": "first"}
    feedback_validation.reject_self_preference("preference", value, "chatcmpl-2")
    with pytest.raises(DataError) as caught:
        feedback_validation.reject_self_preference("preference", value, "chatcmpl-1")
    assert (
        caught.value.message
        == "value of preference names chatcmpl-1 as the other one too; it must be another inference"
    )

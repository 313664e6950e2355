"""Validation of feedback, by kind.

thumb       "up" | "down"
rating      a number from 1 to 5
preference  {"other": id of an inference, "choice": "first" | "second" | "both_good" | "both_bad"}; first is inference_id
click       what was clicked: a text of up to 200 characters, or null
conversion  its worth: a number of 0 or more, or null
edit        the better answer: a text
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, get_args

from tunectl.artifacts.records import Choice, FeedbackKind
from tunectl.core.errors import DataError

LONGEST_EDIT: Final = 100_000
LONGEST_CLICK: Final = 200
LONGEST_ID: Final = 100
MAX_NUMBER: Final = 1e15
"""Largest number that is accepted; larger ones, infinity and NaN are no valid rating or value."""
_CHOICES = get_args(Choice)[:4]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER


def _preference(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"other", "choice"}
        and isinstance(value["other"], str)
        and 1 <= len(value["other"]) <= LONGEST_ID
        and value["choice"] in _CHOICES
    )


RULES: Final[dict[FeedbackKind, tuple[Callable[[Any], bool], str]]] = {
    "thumb": (lambda value: value in ("up", "down"), '"up" or "down"'),
    "rating": (lambda value: _number(value) and 1 <= value <= 5, "a number from 1 to 5"),
    "preference": (_preference, '{"other": another inference, "choice": ' + " | ".join(_CHOICES) + "}"),
    "click": (
        lambda value: value is None or (isinstance(value, str) and len(value) <= LONGEST_CLICK),
        f"a text of up to {LONGEST_CLICK} characters, or null",
    ),
    "conversion": (
        lambda value: value is None or (_number(value) and value >= 0),
        "a number of 0 or more, or null",
    ),
    "edit": (
        lambda value: isinstance(value, str) and len(value.strip()) > 0 and len(value) <= LONGEST_EDIT,
        f"a text of 1 to {LONGEST_EDIT} characters",
    ),
}
"""Validator of each kind, and a description of valid values."""


def validate_feedback(kind: str, value: Any) -> FeedbackKind:
    """Return the kind, after validation of the kind and its value.

    Raises  DataError naming what is allowed; it never repeats a text, because that may be personal.
    """
    for name, (right, allowed) in RULES.items():
        if name == kind:
            if not right(value):
                short = isinstance(value, float) or (isinstance(value, int) and abs(value) <= MAX_NUMBER)
                shown_value = value if short else type(value).__name__
                raise DataError(f"value of {kind} is {shown_value}; allowed is {allowed}")
            return name
    raise DataError(f"kind = {kind[:40]!r}; allowed are {', '.join(RULES)}")


def reject_self_preference(kind: FeedbackKind, value: Any, inference: str) -> None:
    """Raise DataError for a preference whose other answer is that of ``inference`` itself."""
    if kind == "preference" and value["other"] == inference:
        raise DataError(f"value of preference names {inference} as the other one too; it must be another inference")

"""The page of an act: what will happen, to whom, and the form that does it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct, field

from tunectl.console.acts.act_errors import ConflictError


class ActField(Struct, frozen=True):
    """One field of a form."""

    name: str
    label: str
    kind: Literal["text", "checkbox"] = "text"
    value: str = ""
    help: str = ""
    required: bool = False


class ActButton(Struct, frozen=True):
    """One button; its value is sent as ``answer``."""

    value: str
    label: str
    tone: Literal["primary", "danger", ""] = "primary"
    checked: bool = True
    """Whether the browser insists on the required fields."""


class ActPage(Struct, frozen=True):
    """What will happen, or what came of it where there are no buttons."""

    heading: str
    consequences: list[str]
    """A sentence each."""
    facts: list[tuple[str, str]] = field(default_factory=list)
    fields: list[ActField] = field(default_factory=list)
    shown: dict[str, str] = field(default_factory=dict)
    """What the form carries along, so that a change in between is noticed."""
    buttons: list[ActButton] = field(default_factory=list)
    back: str = "/"
    command: str = ""
    """The same in a terminal."""
    scope: str = "look"
    """Without it the form is not shown."""
    secret: str = ""
    """Shown once."""


REASON: Final = ActField("reason", "Why", help="It is kept with your name.", required=True)


def check_unchanged(form: Mapping[str, str], shown: Mapping[str, str]) -> None:
    """Hold a form to what is so now.

    Raises  ConflictError where it was made from something else.
    """
    for name, value in shown.items():
        if form.get(name, "") != value:
            raise ConflictError(
                "the state has changed since this page was loaded, so nothing was done",
                hint="go back, look at the current state, and decide again",
            )

"""The confirmation page of an act: what will happen, who is affected, and the form that performs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct, field

from tunectl.console.acts.act_errors import ConflictError


class ActField(Struct, frozen=True):
    """One input field of a confirmation form."""

    name: str
    label: str
    kind: Literal["text", "checkbox"] = "text"
    value: str = ""
    help: str = ""
    required: bool = False


class ActButton(Struct, frozen=True):
    """A submit button of a confirmation form; its value is sent as ``answer``."""

    value: str
    label: str
    tone: Literal["primary", "danger", ""] = "primary"
    checked: bool = True
    """Whether the browser checks the required fields."""


class ActPage(Struct, frozen=True):
    """Content of a confirmation page: consequences, form and buttons; without buttons, the result of a performed act."""

    heading: str
    consequences: list[str]
    """Consequences of the act, one sentence each."""
    facts: list[tuple[str, str]] = field(default_factory=list)
    fields: list[ActField] = field(default_factory=list)
    state: dict[str, str] = field(default_factory=dict)
    """State that the form carries along, so that a change since is detected."""
    buttons: list[ActButton] = field(default_factory=list)
    back: str = "/"
    command: str = ""
    """The same act as a command in a terminal."""
    scope: str = "look"
    """Scope that the visitor needs; without it the form is not shown."""
    secret: str = ""
    """Secret that is shown once."""


REASON: Final = ActField("reason", "Why", help="It is kept with your name.", required=True)


def check_unchanged(form: Mapping[str, str], state: Mapping[str, str]) -> None:
    """Compare the ``state`` that the page was shown with, as its ``form`` carries it, with the current one.

    Raises  ConflictError where they differ.
    """
    for name, value in state.items():
        if form.get(name, "") != value:
            raise ConflictError(
                "the state has changed since this page was loaded, so nothing was done",
                hint="go back, look at the current state, and decide again",
            )

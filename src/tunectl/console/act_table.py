"""What can be changed from the console: the one table that routes, buttons and tests are made from.

A GET shows what will happen; the POST carries what was shown, so that somebody who was quicker is noticed (409), and a reason.
Acts call what the verbs of the command line call, and are recorded under the name of the key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from tunectl.access.scopes import KeyScope
from tunectl.console.acts import releases
from tunectl.console.read_context import ReadContext


class Act(NamedTuple):
    """One act."""

    path: str
    """``{name}`` stands for one part."""
    title: str
    template: str
    show: Callable[[ReadContext, Mapping[str, str]], Any]
    """The consequences, as a struct; LookupError where there is no such thing."""
    perform: Callable[[ReadContext, Mapping[str, str]], str]
    """Does it with the fields of the form, and returns the path to go to; ConflictError where somebody was quicker."""
    scope: KeyScope
    parent: str
    """Path of the screen that is marked in the navigation."""


ACTS: Final[tuple[Act, ...]] = (
    Act(
        "/releases/{release}/promote",
        "Promote",
        "act_swap.html",
        releases.show_promotion,
        releases.promote,
        "decide",
        "/releases",
    ),
    Act("/rollback", "Roll back", "act_swap.html", releases.show_rollback, releases.roll_back, "decide", "/releases"),
    Act(
        "/releases/{release}/canary",
        "Start a canary",
        "act_swap.html",
        releases.show_canary_start,
        releases.start_canary,
        "decide",
        "/releases",
    ),
    Act(
        "/canary/stop",
        "Stop the canary",
        "act_swap.html",
        releases.show_canary_stop,
        releases.stop_canary,
        "decide",
        "/releases",
    ),
)

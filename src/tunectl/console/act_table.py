"""What can be changed from the console: the one table from which routes, buttons and tests are made.

A GET shows what will happen; the POST carries what was shown, so that a change in between is detected (409), and a reason.
Acts call the functions behind the commands of the command line, and are recorded under the name of the key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from tunectl.access.scopes import KeyScope
from tunectl.console.act_page import ActPage
from tunectl.console.acts import (
    build,
    change_key,
    decide,
    erase_person,
    note_run,
    prepare_questions,
    releases,
    request_retrain,
    set_reference,
)
from tunectl.console.read_context import ReadContext


class Act(NamedTuple):
    """A change that can be made in the console: its route, its confirmation page, the function that performs it, and the scope that it needs."""

    path: str
    """Path of the route; ``{name}`` stands for one part."""
    title: str
    template: str
    show: Callable[[ReadContext, Mapping[str, str]], Any]
    """Returns the consequences, as a struct; raises NotFoundError where there is no such thing."""
    perform: Callable[[ReadContext, Mapping[str, str]], str | ActPage]
    """Performs the act with the fields of the form, and returns the path to go to, or a page with the result; raises ConflictError where the state has changed since."""
    scope: KeyScope
    parent: str
    """Path of the screen that is highlighted in the navigation."""


ACTS: Final[tuple[Act, ...]] = (
    Act("/build/start", "Start a build", "act.html", build.show_start, build.start, "operate", "/build"),
    Act("/runs/{record}/note", "Note on a run", "act.html", note_run.read, note_run.perform, "operate", "/runs"),
    Act("/build/stop", "Stop the build", "act.html", build.show_stop, build.stop, "operate", "/build"),
    Act(
        "/people/prepare",
        prepare_questions.TITLE,
        "act.html",
        prepare_questions.show_start,
        prepare_questions.start,
        "operate",
        "/people",
    ),
    Act(
        "/people/prepare/stop",
        prepare_questions.STOP_TITLE,
        "act.html",
        prepare_questions.show_stop,
        prepare_questions.stop,
        "operate",
        "/people",
    ),
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
    Act("/decisions/{run}", "Decide", "act.html", decide.read, decide.perform, "decide", "/decisions"),
    Act(
        "/retrain/request",
        "Ask for a retrain",
        "act.html",
        request_retrain.read,
        request_retrain.perform,
        "operate",
        "/retrain",
    ),
    Act(
        "/drift/{window}/set-reference",
        "Set the reference",
        "act.html",
        set_reference.read,
        set_reference.perform,
        "operate",
        "/drift",
    ),
    Act(
        "/live/{inference}/erase",
        "Erase a person",
        "act.html",
        erase_person.read,
        erase_person.perform,
        "admin",
        "/live",
    ),
    Act(
        "/settings/keys/add", "Add a key", "act.html", change_key.read_add, change_key.perform_add, "admin", "/settings"
    ),
    Act(
        "/settings/keys/{key}/disable",
        "Disable a key",
        "act.html",
        change_key.read_disable,
        change_key.perform_disable,
        "admin",
        "/settings",
    ),
    Act(
        "/settings/keys/{key}/enable",
        "Enable a key",
        "act.html",
        change_key.read_enable,
        change_key.perform_enable,
        "admin",
        "/settings",
    ),
    Act(
        "/settings/keys/{key}/remove",
        "Remove a key",
        "act.html",
        change_key.read_remove,
        change_key.perform_remove,
        "admin",
        "/settings",
    ),
)

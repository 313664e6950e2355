"""The rules of the console's routes, made from its tables of screens and acts: for ``docs/reference/routes.md``, and for the test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tunectl.access.routes import RouteRule
from tunectl.access.scopes import KeyScope
from tunectl.console.act_table import ACTS
from tunectl.console.screen_table import SCREENS, json_path

PLAY_PATHS: Final = ("/play/ask", "/play/feedback")
REPORT_PATH: Final = "/drift/{window}/report"
"""Evidently's page of a window, which has scripts of its own and is sent in a sandbox."""
PLAY_SCOPE: Final[KeyScope] = "operate"
"""Scope for asking and judging on the page Play: the server is asked with the console's own key."""


def list_console_rules() -> Iterator[RouteRule]:
    """Yield the method, path, authentication and scopes of each route of the console."""
    yield RouteRule("console", "GET", "/healthz", "nothing")
    yield RouteRule("console", "GET", "/static/{path:path}", "nothing")
    yield RouteRule("console", "GET", "/enter", "nothing")
    yield RouteRule("console", "POST", "/enter", "typed key", body="form")
    yield RouteRule("console", "POST", "/leave", "session", body="form")
    yield RouteRule("console", "GET", "/events", "session", scopes=("look",))
    for screen in SCREENS:
        for path in (screen.path, json_path(screen.path)):
            yield RouteRule("console", "GET", path, "session", scopes=(screen.scope,))
    yield RouteRule("console", "GET", REPORT_PATH, "session", scopes=("look",))
    for act in ACTS:
        yield RouteRule("console", "GET", act.path, "session", scopes=("look",))
        yield RouteRule("console", "POST", act.path, "session", body="form", scopes=(act.scope,))
    for path in PLAY_PATHS:
        yield RouteRule("console", "POST", path, "session", body="form", scopes=(PLAY_SCOPE,))

"""Every route of every service, and what opens it: the one table that the guard reads and ``docs/reference/routes.md`` shows.

The console has its rules in ``console/console_routes.py``, made from its screens and acts: they open with a session alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from msgspec import Struct

from tunectl.access.scopes import KeyScope

ServiceName = Literal["server", "monitor", "retrain", "annotate", "console"]
Credential = KeyScope | Literal["nothing", "any key", "typed key", "session", "signed link"]
"""What a route needs: a key of that scope (or admin), nothing, any key, a key that somebody types on the page, the session of
who has signed in there, or a signed link, which only shows."""
BodyKind = Literal["json", "form"]
CONTENT_TYPES: Final[dict[BodyKind, str]] = {"json": "application/json", "form": "application/x-www-form-urlencoded"}


ARENA_SCOPES: Final[tuple[KeyScope, ...]] = ("chat", "feedback")
"""Scopes that a key needs for the arena, where people chat with the model (chat) and choose between answers (feedback)."""
TOKEN_SCOPES: Final[tuple[KeyScope, ...]] = ("operate", "scrape")
"""What the token of retrain.token_file may do at the retrain controller: Alertmanager and Grafana send alerts with it, Prometheus reads metrics."""


class RouteRule(Struct, frozen=True):
    """Method, path, credential and scopes of one route of one service: a row of the table that the guard reads."""

    service: ServiceName
    method: Literal["GET", "POST"]
    """GET also means HEAD."""
    path: str
    """``{name}`` stands for one part of the path, ``{name:path}`` for the rest of it."""
    opened_by: Credential
    keyless: bool = False
    """Whether the route is open without a key where the service listens on this machine only and has no keys."""
    body: BodyKind | None = None
    """Content type that a POST must have."""
    scopes: tuple[KeyScope, ...] = ()
    """Scopes of the key that is typed, or that opened the session; all of them."""


def _list_rules() -> Iterator[RouteRule]:
    for path in ("/healthz", "/livez", "/readyz"):
        yield RouteRule("server", "GET", path, "nothing")
    yield RouteRule("server", "POST", "/v1/chat/completions", "chat", body="json")
    yield RouteRule("server", "POST", "/v1/completions", "chat", body="json")
    yield RouteRule("server", "GET", "/v1/models", "chat")
    yield RouteRule("server", "GET", "/v1/models/{model:path}", "chat")
    yield RouteRule("server", "POST", "/v1/feedback", "feedback", body="json")
    yield RouteRule("server", "GET", "/metrics", "scrape")
    yield RouteRule("server", "GET", "/openapi.json", "any key")
    yield RouteRule("server", "GET", "/docs", "any key")
    yield RouteRule("server", "GET", "/arena", "nothing")
    yield RouteRule("server", "GET", "/arena/assets/{path:path}", "nothing")
    yield RouteRule("server", "POST", "/arena/enter", "typed key", body="form", scopes=ARENA_SCOPES)
    for name in ("leave", "ask", "said", "new"):
        yield RouteRule("server", "POST", f"/arena/{name}", "session", body="form", scopes=ARENA_SCOPES)

    for path in ("/healthz", "/livez"):
        yield RouteRule("monitor", "GET", path, "nothing")
    yield RouteRule("monitor", "GET", "/metrics", "scrape", keyless=True)
    for path in ("/", "/windows/{id}", "/windows.json", "/reports", "/reports/", "/reports/{id}"):
        yield RouteRule("monitor", "GET", path, "look", keyless=True)

    for path in ("/healthz", "/livez"):
        yield RouteRule("retrain", "GET", path, "nothing")
    yield RouteRule("retrain", "POST", "/webhook", "operate", body="json")
    yield RouteRule("retrain", "GET", "/metrics", "scrape", keyless=True)
    for path in ("/", "/runs/{id}"):
        yield RouteRule("retrain", "GET", path, "look", keyless=True)
    yield RouteRule("retrain", "GET", "/decide/{token}", "signed link")
    yield RouteRule("retrain", "POST", "/decide/{token}", "typed key", body="form", scopes=("decide",))

    yield RouteRule("annotate", "GET", "/", "nothing", keyless=True)
    yield RouteRule("annotate", "GET", "/assets/{path:path}", "nothing", keyless=True)
    people: tuple[KeyScope, ...] = ("annotate",)
    yield RouteRule("annotate", "GET", "/question", "session", keyless=True, scopes=people)
    yield RouteRule("annotate", "POST", "/enter", "typed key", keyless=True, body="form", scopes=people)
    for name in ("leave", "said", "undo"):
        yield RouteRule("annotate", "POST", f"/{name}", "session", keyless=True, body="form", scopes=people)


ROUTES: Final = tuple(_list_rules())


def find_rules(service: ServiceName, path: str) -> dict[str, RouteRule]:
    """Return the rules of ``path`` by method, HEAD included; empty where there is no such route."""
    route_rules: dict[str, RouteRule] = {}
    for rule in ROUTES:
        if rule.service == service and _matches(rule.path, path):
            route_rules.setdefault(rule.method, rule)
            if rule.method == "GET":
                route_rules.setdefault("HEAD", rule)
    return route_rules


def _matches(pattern: str, path: str) -> bool:
    """Return whether a path matches a pattern; a variable part is at its end."""
    start, _, variable = pattern.partition("{")
    if not variable:
        return path == pattern
    return path.startswith(start) and (variable.endswith(":path}") or "/" not in path[len(start) :])

"""Every route of the console, against its rules: without a session, with each scope, across sites, under another name, over HTTPS."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from console_projects import Console, initialize

from tunectl.access import api_keys
from tunectl.access.api_keys import KeyStore
from tunectl.access.routes import CONTENT_TYPES, RouteRule
from tunectl.access.scopes import SCOPES
from tunectl.access.security_headers import SECURITY_HEADERS
from tunectl.console.console_routes import list_console_rules
from tunectl.console.console_sessions import ALL_SCOPES

RULES = tuple(list_console_rules())
WALK = [pytest.param(rule, id=f"{rule.method} {rule.path}") for rule in RULES]
POSTS = [pytest.param(rule, id=rule.path) for rule in RULES if rule.method == "POST"]
OPEN = ("nothing", "typed key")
REFUSALS = {401, 403, 405, 415, 421}
OWN = {"origin": "http://localhost", "content-type": CONTENT_TYPES["form"]}


class Walk:
    """A console with a key of each scope, and who is signed in with each."""

    def __init__(self, folder: Path) -> None:
        path, self.keys = folder / "keys.json", dict[str, str]()
        for scope in SCOPES:
            self.keys[scope], entry = api_keys.create_key(scope, [scope], None, datetime.now(UTC))
            api_keys.add(path, entry)
        store = KeyStore(path, 1.0)
        store.load()
        self.console = Console(initialize(folder / "shop"), keys=store)
        self.cookies = {
            scope: found.partition(";")[0] for scope, key in self.keys.items() if (found := self.enter(key)[1])
        }

    def enter(self, key: str, **headers: str) -> tuple[int, str]:
        """Status of a sign-in, and its cookie."""
        sent = urlencode({"secret": key}).encode()
        status, given = self.ask("POST", "/enter", {**OWN, **headers}, sent)
        return status, given.get("set-cookie", "")

    def ask(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes = b"",
        meanwhile: Callable[[], None] = lambda: None,
    ) -> tuple[int, dict[str, str]]:
        """Status and headers of an answer; what goes on for ever is not waited for. ``meanwhile`` is called before the body arrives."""
        given = {"host": "localhost", "content-length": str(len(body)), **headers}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "scheme": "http",
            "query_string": b"",
            "client": ("10.0.0.7", 4000),
            "server": None,
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        }

        async def run() -> Any:
            started: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            left = [{"type": "http.request", "body": body, "more_body": False}]

            async def receive() -> Any:
                meanwhile()
                return left.pop() if left else await asyncio.Event().wait()

            async def send(event: Any) -> None:
                if event["type"] == "http.response.start":
                    started.set_result(event)

            task = asyncio.ensure_future(self.console.application(scope, receive, send))
            await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
            task.cancel()
            await asyncio.wait([task])
            return started.result()

        event = asyncio.run(run())
        return event["status"], {name.decode().lower(): value.decode() for name, value in event["headers"]}


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    return Walk(tmp_path_factory.mktemp("console"))


def fill_path(rule: RouteRule) -> str:
    return re.sub(r"\{\w+\}", "absent", rule.path.replace("{path:path}", "style.css"))


def build_headers(rule: RouteRule, cookie: str = "", **headers: str) -> dict[str, str]:
    own = OWN if rule.method == "POST" else {}
    return {**own, **({"cookie": cookie} if cookie else {}), **headers}


def test_the_console_has_no_other_routes(walk: Walk) -> None:
    found = set()
    for route in walk.console.application.application.routes:
        if hasattr(route, "methods"):
            found |= {(method, route.path) for method in route.methods - {"HEAD"}}
        else:
            found.add(("GET", f"{route.path}/{{path:path}}"))
    assert found == {(rule.method, rule.path) for rule in RULES}


@pytest.mark.parametrize("rule", WALK)
def test_without_a_session(walk: Walk, rule: RouteRule) -> None:
    for cookie in ("", "tunectl_console_default=made-up"):
        status, headers = walk.ask(rule.method, fill_path(rule), build_headers(rule, cookie))
        if rule.opened_by in OPEN:
            assert status == (401 if rule.method == "POST" else 200)
        elif rule.path == "/leave":
            assert status == 303
        elif rule.method == "POST" or rule.path == "/events" or rule.path.endswith(".json"):
            assert status == 401
        else:
            assert (status, headers["location"].partition("?")[0]) == (303, "/enter")
        assert not {name.lower() for name in SECURITY_HEADERS} - set(headers)
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
    key = walk.keys["admin"]
    status, _ = walk.ask(rule.method, fill_path(rule), build_headers(rule, authorization=f"Bearer {key}"))
    assert status in ((200, 401) if rule.opened_by in OPEN else (303, 401)), "a key opens nothing but a session"


@pytest.mark.parametrize("rule", WALK)
def test_with_each_scope(walk: Walk, rule: RouteRule) -> None:
    for scope, cookie in walk.cookies.items():
        if rule.path in ("/leave", "/enter"):
            continue
        status, _ = walk.ask(rule.method, fill_path(rule), build_headers(rule, cookie))
        allowed = not rule.scopes or scope == "admin" or scope in rule.scopes
        assert (status not in REFUSALS) is allowed, (scope, status)
        assert allowed or status == 403


@pytest.mark.parametrize(
    "rule", [walk for walk in POSTS if walk.values[0].opened_by == "session" and walk.id != "/leave"]
)
def test_a_key_that_is_revoked_while_a_form_arrives_changes_nothing(
    walk: Walk, tmp_path: Path, rule: RouteRule
) -> None:
    path = tmp_path / "keys.json"
    secret, entry = api_keys.create_key("late", ["admin"], None, datetime.now(UTC))
    api_keys.add(path, entry)
    walk.console.sign_in._keys, before = KeyStore(path, 0.0), walk.console.sign_in._keys
    try:
        sent = build_headers(rule, walk.enter(secret)[1].partition(";")[0])
        assert walk.ask("POST", fill_path(rule), sent, b"a=b", lambda: path.unlink(missing_ok=True))[0] == 401
    finally:
        walk.console.sign_in._keys = before


def test_who_gets_a_session(walk: Walk) -> None:
    assert set(walk.cookies) == ALL_SCOPES
    assert {"chat", "feedback", "scrape"}.isdisjoint(walk.cookies)


@pytest.mark.parametrize("rule", POSTS)
def test_across_sites(walk: Walk, rule: RouteRule) -> None:
    cookie = walk.cookies["admin"]
    for foreign in (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"origin": "http://localhost:8080", "sec-fetch-site": "same-site"},
    ):
        assert walk.ask("POST", fill_path(rule), build_headers(rule, cookie, **foreign))[0] == 403, foreign
    quiet = {"cookie": cookie, "content-type": CONTENT_TYPES["form"]}
    assert walk.ask("POST", fill_path(rule), quiet)[0] == 403
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/json", ""):
        sent = build_headers(rule, cookie, **{"content-type": kind})
        assert walk.ask("POST", fill_path(rule), sent)[0] == 415, kind


@pytest.mark.parametrize("rule", WALK)
def test_under_another_name(walk: Walk, rule: RouteRule) -> None:
    sent = build_headers(rule, walk.cookies["admin"], host="evil.example:8300")
    if rule.method == "POST":
        sent["origin"] = "http://evil.example:8300"  # a page under that name, which leads here
    assert walk.ask(rule.method, fill_path(rule), sent)[0] == 421


def test_behind_https_cookies_are_for_https_and_this_host_alone(walk: Walk) -> None:
    for headers in ({"x-forwarded-proto": "https"}, {"origin": "https://localhost"}):
        status, given = walk.enter(walk.keys["look"], **headers)
        assert status == 303
        assert given.startswith("__Host-tunectl_console")
        assert {"Secure", "HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in given.split(";")}
        cookie = {"cookie": given.partition(";")[0], "x-forwarded-proto": "https"}
        status, answer = walk.ask("GET", "/home.json", cookie)
        assert (status, answer["strict-transport-security"]) == (200, "max-age=31536000")

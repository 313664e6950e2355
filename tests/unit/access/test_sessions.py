"""Sessions end with their key and with time; a cookie of one person is no proof for another."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tunectl.access import api_keys, sessions, throttle
from tunectl.access.api_errors import ApiError
from tunectl.access.api_keys import KeyStore
from tunectl.access.scopes import KeyScope
from tunectl.access.sessions import SessionStore
from tunectl.access.throttle import KeyThrottle


def test_a_session_ends_with_its_key_and_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    open_keys = {"a", "b"}
    store: SessionStore[str] = SessionStore(lambda key: key in open_keys)
    first, other = store.create("a", "Ada"), store.create("b", "Bo")
    assert (store.find(first), store.find(other), store.find("made up"), store.find("")) == ("Ada", "Bo", None, None)
    open_keys.remove("b")
    assert (store.find(first), store.find(other)) == ("Ada", None)
    monkeypatch.setattr(sessions, "monotonic", lambda: time.monotonic() + sessions.MAX_AGE_SECONDS + 1)
    assert store.find(first) is None


def test_one_key_evicts_only_its_own_sessions() -> None:
    store: SessionStore[int] = SessionStore(lambda key: True)
    other, own = store.create("b", -1), [store.create("a", number) for number in range(100)]
    assert store.find(other) == -1
    assert [store.find(token) for token in own[-sessions.MAX_PER_KEY :]] == list(range(80, 100))
    assert store.find(own[79]) is None


def test_attempts_are_allowed_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(throttle, "monotonic", lambda: now[0])
    tries = KeyThrottle()
    for _ in range(throttle.MAX_TRIES):
        tries.check("here")
        tries.count("here")
    with pytest.raises(ApiError) as caught:
        tries.check("here")
    assert caught.value.status == 429
    tries.check("there")
    now[0] = 7
    tries.check("here")


@pytest.mark.parametrize(
    ("scheme", "headers", "found"),
    [
        ("http", {}, False),
        ("https", {}, True),
        ("http", {"x-forwarded-proto": "https, http"}, True),
        ("http", {"x-forwarded-proto": "http"}, False),
        ("http", {"origin": "https://a.example"}, True),
        ("http", {"origin": "http://a.example"}, False),
    ],
)
def test_whether_a_browser_came_over_https(scheme: str, headers: dict[str, str], found: bool) -> None:
    assert sessions.is_https(scheme, headers) is found


def sign_in(application: Any, **fields: str) -> tuple[int, str]:
    """Status of a sign-in on the page of annotation, and the cookie."""
    sent: list[Any] = []
    body = urlencode(fields).encode()
    headers = [(b"host", b"a"), (b"origin", b"http://a"), (b"content-type", b"application/x-www-form-urlencoded")]

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(event: Any) -> None:
        sent.append(event)

    scope = {"type": "http", "method": "POST", "path": "/enter", "headers": headers, "scheme": "http"}
    scope |= {"query_string": b"", "root_path": "", "client": ("10.0.0.1", 1), "server": None, "raw_path": b"/enter"}
    asyncio.run(application(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]).get(b"set-cookie", b"").decode()


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "keys.json", 0.0)


def add_key(keys: KeyStore, name: str, *scopes: KeyScope) -> str:
    secret, entry = api_keys.create_key(name, scopes, None, datetime.now(UTC))
    api_keys.add(keys.path, entry)
    return secret


def test_who_shares_a_key_types_a_name_and_nobody_else_does(keys: KeyStore) -> None:
    pytest.importorskip("starlette")
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.routing import Route

    from tunectl.annotation import annotate_app

    own, shared = add_key(keys, "ada", "annotate"), add_key(keys, "crowd", "annotate", "acts_for")
    page = annotate_app._Routes(None, annotate_app.AnnotateAppConfig("shop", (), keys, None, lambda: None))

    def find_who(**fields: str) -> str | None:
        """The name that a sign-in with these fields leads to."""
        enter = Route("/enter", page.enter, methods=["POST"])
        status, given = sign_in(Starlette(routes=[enter]), **fields)
        assert status == 303
        headers = [(b"cookie", given.partition(";")[0].encode())]
        return page._who(Request({"type": "http", "method": "GET", "path": "/", "headers": headers}))

    assert find_who(key=own, name="Grace") == "ada"
    assert find_who(key=shared, name="Grace B. O'Hara") == "Grace B. O'Hara"


def test_wrong_keys_of_annotators_are_throttled(keys: KeyStore) -> None:
    pytest.importorskip("starlette")
    from tunectl.annotation import annotate_app

    secret = add_key(keys, "ada", "annotate")
    application = annotate_app.application(None, annotate_app.AnnotateAppConfig("shop", (), keys, None, lambda: None))
    found = [sign_in(application, key="wrong")[0] for _ in range(12)]
    assert found == [401] * 10 + [429] * 2
    assert sign_in(application, key=secret)[0] == 429


def test_over_https_the_cookie_that_another_host_can_set_opens_nothing() -> None:
    cookies = {"tunectl_arena": "from another host of the domain"}
    assert sessions.read_cookie(cookies, "tunectl_arena", https=True) == ""
    assert sessions.read_cookie(cookies, "tunectl_arena", https=False) == "from another host of the domain"
    own = {**cookies, "__Host-tunectl_arena": "own"}
    assert [sessions.read_cookie(own, "tunectl_arena", https=https) for https in (True, False)] == ["own", "own"]


@pytest.mark.parametrize("name", ["a" * 41, "Ada%0AGrace", "%1b[2J", ""])
def test_a_cookie_is_no_name_that_nobody_could_type(name: str) -> None:
    pytest.importorskip("starlette")
    from starlette.requests import Request

    from tunectl.annotation import annotate_app

    page = annotate_app._Routes(None, annotate_app.AnnotateAppConfig("shop", (), None, None, lambda: None))

    def find_who(cookie: str) -> str | None:
        headers = [(b"cookie", f"tunectl_annotator={cookie}".encode())]
        return page._who(Request({"type": "http", "method": "GET", "path": "/", "headers": headers}))

    assert find_who("Ada%20L.") == "Ada L."
    assert find_who(name) is None

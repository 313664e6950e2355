"""Sessions end with their key and with time; a cookie of one person is no proof for another."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.parse import urlencode

import pytest

from tunectl.access import sessions, throttle
from tunectl.access.api_errors import ApiError
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


def test_one_key_pushes_nobody_out_but_its_own() -> None:
    store: SessionStore[int] = SessionStore(lambda key: True)
    other, own = store.create("b", -1), [store.create("a", number) for number in range(100)]
    assert store.find(other) == -1
    assert [store.find(token) for token in own[-sessions.MAX_PER_KEY :]] == list(range(80, 100))
    assert store.find(own[79]) is None


def test_tries_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
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


KEY = "a key of some length"


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


def test_a_proof_is_of_one_person_and_one_week(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("starlette")
    from starlette.requests import Request

    from tunectl.annotation import annotate_app

    setup = annotate_app.AnnotateAppConfig("shop", (), KEY, None, lambda: None)
    status, given = sign_in(annotate_app.application(None, setup), name="Ada B. O'Hara", key=KEY)
    assert status == 303
    value = given.partition(";")[0].partition("=")[2]
    page = annotate_app._Routes(None, setup)

    def find_who(cookie: str) -> str | None:
        headers = [(b"cookie", f"tunectl_annotator={cookie}".encode())]
        return page._who(Request({"type": "http", "method": "GET", "path": "/", "headers": headers}))

    assert find_who(value) == "Ada B. O'Hara"
    name, until, proof = value.split(".")
    for forged in (name, f"{name}.{until}", f"Bo.{until}.{proof}", f"{name}.{int(until) + 1}.{proof}", f"{name}..", ""):
        assert find_who(forged) is None
    monkeypatch.setattr(annotate_app.time, "time", lambda: int(until) + 1.0)
    assert find_who(value) is None


def test_wrong_keys_of_annotators_are_throttled() -> None:
    pytest.importorskip("starlette")
    from tunectl.annotation import annotate_app

    setup = annotate_app.AnnotateAppConfig("shop", (), KEY, None, lambda: None)
    application = annotate_app.application(None, setup)
    found = [sign_in(application, name="Ada", key="wrong")[0] for _ in range(12)]
    assert found == [401] * 10 + [429] * 2
    assert sign_in(application, name="Ada", key=KEY)[0] == 429

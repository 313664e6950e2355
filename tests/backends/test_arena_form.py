"""Sign-in of the arena: a form that does not come whole is refused, nobody is waited for, and a key has one name."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from half_uploads import hold_half_uploads, measure_health, serve

from tunectl.access.api_keys import ApiKey
from tunectl.annotation import annotate_app, arena_app
from tunectl.annotation.arena_app import ArenaAppConfig, application

FORM = [
    (b"host", b"localhost"),
    (b"origin", b"http://localhost"),
    (b"content-type", b"application/x-www-form-urlencoded"),
]


async def collect(arena, events, request=None):
    """What the arena sends to a request that comes in these pieces; after the last one the client says no more."""
    told, left = [], iter(events)
    scope = {"type": "http", "method": "POST", "path": "/arena/enter", "raw_path": b"/arena/enter", "headers": FORM}
    scope |= {"query_string": b"", "root_path": "", "scheme": "http", "server": None, "client": None, **(request or {})}

    async def receive():
        found = next(left, None)
        return found if found is not None else await asyncio.Event().wait()

    async def send(event) -> None:
        told.append(event)

    await asyncio.wait_for(arena(scope, receive, send), 60)
    return told


@pytest.mark.parametrize(
    "pieces",
    [
        [b"name=Ada&key=" + b"x" * 250_000],
        [b"name=Ada", None],
        [b"name=Ada"],
    ],
    ids=["too long", "the client left", "too slow"],
)
def test_a_form_that_does_not_come_whole_is_refused(tmp_path, pieces, monkeypatch):
    monkeypatch.setattr(annotate_app, "FORM_SECONDS", 0.2)
    arena = application(None, ArenaAppConfig("local_lens", (), tmp_path, None, lambda key: None))
    events = [
        {"type": "http.disconnect"} if piece is None else {"type": "http.request", "body": piece, "more_body": True}
        for piece in pieces
    ]
    start, body = asyncio.run(collect(arena, events))
    assert (start["status"], body["body"].decode()) == (403, arena_app.REFUSED)


@pytest.mark.parametrize(("scopes", "name"), [([], "bob"), (["acts_for"], "alice")])
def test_a_key_that_acts_for_nobody_votes_under_its_own_name(tmp_path, scopes, name):
    holder = ApiKey("bob", "0" * 64, ["chat", "feedback", *scopes], None, datetime(2026, 11, 1, tzinfo=UTC))
    arena = application(None, ArenaAppConfig("local_lens", (), tmp_path, None, lambda key: holder))
    told = asyncio.run(collect(arena, [{"type": "http.request", "body": b"name=alice&key=tk-1", "more_body": False}]))
    cookie = dict(told[0]["headers"])[b"set-cookie"].split(b";")[0]
    scope = {"type": "http", "method": "GET", "path": "/arena", "raw_path": b"/arena", "query_string": b""}
    page = asyncio.run(collect(arena, [], scope | {"headers": [(b"host", b"localhost"), (b"cookie", cookie)]}))
    assert f"<p>{name}</p>" in page[1]["body"].decode()


def test_health_is_told_beside_half_forms(tmp_path):
    arena = application(None, ArenaAppConfig("local_lens", (), tmp_path, None, lambda key: None))
    with serve(arena) as port, hold_half_uploads(port, "/arena/enter"):
        assert measure_health(port, "/arena") < 1

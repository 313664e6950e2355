"""The arena's door: a form that does not come whole is refused, and nobody is waited for."""

from __future__ import annotations

import asyncio

import pytest

from tunectl.annotation import arena_app
from tunectl.annotation.arena_app import ArenaAppConfig, application

FORM = [
    (b"host", b"localhost"),
    (b"origin", b"http://localhost"),
    (b"content-type", b"application/x-www-form-urlencoded"),
]


async def sent(arena, events, path="/arena/enter"):
    """What the arena answers to a form that comes in these pieces; after the last one the client says no more."""
    told, left = [], iter(events)
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
    scope |= {"headers": FORM, "root_path": "", "scheme": "http", "server": None, "client": None}

    async def receive():
        found = next(left, None)
        return found if found is not None else await asyncio.Event().wait()

    async def send(event) -> None:
        told.append(event)

    await asyncio.wait_for(arena(scope, receive, send), 60)
    return told[0]["status"], told[1]["body"].decode()


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
    monkeypatch.setattr(arena_app, "READ", 0.2)
    arena = application(None, ArenaAppConfig("local_lens", (), tmp_path, None, lambda key: True))
    events = [
        {"type": "http.disconnect"} if piece is None else {"type": "http.request", "body": piece, "more_body": True}
        for piece in pieces
    ]
    assert asyncio.run(sent(arena, events)) == (403, arena_app.REFUSED)

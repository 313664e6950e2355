"""Requests as bytes and events, without a socket: what a door says, and what becomes of a client that goes on sending."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from serving_process import settings

from tunectl.access import api_keys
from tunectl.access.api_errors import ApiError
from tunectl.access.api_keys import KeyStore
from tunectl.config.schema.serve import ServeSettings
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.serving import http_io, supervisor
from tunectl.serving.admission_control import AdmissionController, CapacityLimits
from tunectl.serving.app import HEALTH, Server
from tunectl.serving.http_io import RequestContext, UploadSlots
from tunectl.serving.model_manager import ModelManager
from tunectl.serving.openapi import ROUTES, build_openapi
from tunectl.serving.serving_metrics import ServingMetrics


@pytest.fixture
def empty(tmp_path: Path) -> tuple[Server, str]:
    """A server without a release, and a key that opens everything."""
    secret, entry = api_keys.create_key("all", ["admin"], None, datetime.now(UTC))
    api_keys.add(tmp_path / "keys.json", entry)
    key_store = KeyStore(tmp_path / "keys.json", 1.0)
    key_store.load()
    given = ServeSettings.model_validate(settings(), strict=True)
    model_manager = ModelManager(
        ReleaseRegistry(tmp_path / "store"), None, bundled=None, base=False, standby_seconds=0, changed=lambda: None
    )
    return Server(
        given, model_manager, key_store, AdmissionController(CapacityLimits(1, 1, 1000)), ServingMetrics(), None
    ), secret


def told(
    server: Server, method: str, path: str, *headers: tuple[bytes, bytes]
) -> tuple[int, dict[bytes, bytes], bytes]:
    sent: list[Any] = []

    async def send(event: Any) -> None:
        sent.append(event)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": method, "path": path, "headers": [*headers], "query_string": b""}
    asyncio.run(server(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(event.get("body", b"") for event in sent[1:])


@pytest.mark.parametrize("path", ["*", "a.example:443", "", "http://a.example/v1/models", "//arena/x"])
def test_targets_that_are_no_paths(empty, path: str) -> None:
    server, secret = empty
    server.mounts["/arena"] = None
    assert told(server, "GET", path)[0] == 401
    status, _, body = told(server, "GET", path, (b"authorization", f"Bearer {secret}".encode()))
    assert (status, json.loads(body)["error"]["type"]) == (404, "not_found_error")


@pytest.mark.parametrize("value", [b"Basic \xe9\xe9", b"Basic !!", b"Basic /w==", b"Basic OnRr", b"Bearer", b"\xff"])
def test_keys_that_are_none(empty, value: bytes) -> None:
    status, headers, body = told(empty[0], "GET", "/v1/models", (b"authorization", value))
    assert status == 401
    assert b"www-authenticate" in headers
    assert json.loads(body)["error"]["code"] == "invalid_api_key"


def test_another_method_is_told_which_is_right(empty) -> None:
    server, secret = empty
    key = (b"authorization", f"Bearer {secret}".encode())
    for method, path, allowed in (
        ("PUT", "/healthz", b"GET, HEAD"),
        ("GET", "/v1/feedback", b"POST"),
        ("POST", "/docs", b"GET, HEAD"),
    ):
        status, headers, body = told(server, method, path, key)
        assert (status, headers[b"allow"]) == (405, allowed)
        assert json.loads(body)["error"]["message"] == f"{path} takes {allowed.decode()[:4].strip(',')}, not {method}"


HTTPS = (b"x-forwarded-proto", b"https")


def test_a_declared_origin_may_call_and_no_other(empty) -> None:
    server, secret = empty
    key = (b"authorization", f"Bearer {secret}".encode())
    server.settings = ServeSettings.model_validate(settings(cors=["https://shop.example"]), strict=True)
    ours, other = (b"origin", b"https://shop.example"), (b"origin", b"https://evil.example")
    wanted = (b"access-control-request-method", b"POST")
    named = (b"access-control-request-headers", b"authorization, content-type, x-stainless-lang")
    status, headers, _ = told(server, "OPTIONS", "/v1/chat/completions", ours, wanted, named)
    assert (status, headers[b"access-control-allow-origin"]) == (204, b"https://shop.example")
    assert headers[b"access-control-allow-headers"] == named[1]
    assert b"access-control-allow-credentials" not in headers
    status, headers, _ = told(server, "OPTIONS", "/v1/chat/completions", other, wanted, named)
    assert status == 401
    assert not [name for name in headers if name.startswith(b"access-control")]
    for given, status in (((ours, key), 200), ((ours,), 401)):
        found, headers, _ = told(server, "GET", "/v1/models", *given)
        assert (found, headers[b"access-control-allow-origin"]) == (status, b"https://shop.example")
        assert headers[b"access-control-expose-headers"] == b"retry-after, retry-after-ms"
        assert told(server, "GET", "/v1/models", *given, HTTPS)[1][b"strict-transport-security"] == b"max-age=31536000"
    assert b"access-control-allow-origin" not in told(server, "GET", "/v1/models", other, key)[1]


def test_the_document_names_every_route(empty) -> None:
    server = empty[0]
    named = {route.path for route in ROUTES if not route.path.startswith("/arena")}
    assert named == {path.replace(":path", "") for path in server.routes} | HEALTH
    for path, route in server.routes.items():
        described = next(one for one in ROUTES if one.path == path.replace(":path", ""))
        assert (described.method.upper(), described.auth) == (route.rule.method, route.scope or "any")
    paths = json.loads(build_openapi("shop", "1"))["paths"]
    assert {path for path, ways in paths.items() for way in ways.values() if way.get("security") == []} == {
        *HEALTH,
        "/arena",
        "/arena/enter",
    }


def _call(events: list[Any], sent: list[Any], length: bytes) -> RequestContext:
    async def receive() -> Any:
        if not events:
            await asyncio.Event().wait()
        return events.pop(0)

    async def send(event: Any) -> None:
        sent.append((event, len(events)))

    return RequestContext({"method": "POST", "path": "/", "headers": [(b"content-length", length)]}, receive, send)


def test_a_refused_client_may_finish_sending_before_the_connection_closes(monkeypatch) -> None:
    monkeypatch.setattr(http_io, "LINGER", 0.05)
    more = {"type": "http.request", "body": b"x" * 10, "more_body": True}
    for events, left in (([dict(more), dict(more), {**more, "more_body": False}], 0), ([dict(more)], 0), ([], 0)):
        sent: list[Any] = []
        asyncio.run(_call(events, sent, b"1000").refuse(ApiError("no", status=413)))
        (start, _), (body, unread), (end, rest) = sent
        assert (b"connection", b"close") in start["headers"]
        assert json.loads(body["body"])["error"]["message"] == "no"
        assert body["more_body"]  # the answer is whole for the client, and the connection is open
        assert (end["body"], rest) == (b"", left)
        assert unread >= rest


def test_a_body_that_was_read_is_answered_at_once() -> None:
    sent: list[Any] = []
    call = _call([{"type": "http.request", "body": b"{}", "more_body": False}], sent, b"2")

    async def answer() -> None:
        assert await call.body(10, 1, UploadSlots(), "a key") == b"{}"
        await call.refuse(ApiError("no", wait=2.2))

    asyncio.run(answer())
    (start, _), (body, _) = sent
    assert not body["more_body"]
    assert {(b"retry-after", b"3"), (b"retry-after-ms", b"2200")} <= set(start["headers"])


def test_one_key_does_not_hold_every_place_of_bodies_on_their_way() -> None:
    slots, more = UploadSlots(total=3, each=2), {"type": "http.request", "body": b"x", "more_body": True}

    async def upload(owner: str) -> int:
        try:
            await _call([dict(more)], [], b"100").body(100, 0.2, slots, owner)
        except ApiError as problem:
            return problem.status
        return 200

    async def crowd() -> list[int]:
        return await asyncio.gather(*(upload(owner) for owner in ("a", "a", "a", "b", "b")))

    assert asyncio.run(crowd()) == [408, 408, 429, 408, 429]
    whole = _call([{"type": "http.request", "body": b"x" * 11, "more_body": False}], [], b"")
    with pytest.raises(ApiError) as caught:
        asyncio.run(whole.body(10, 1, slots, "a"))
    assert caught.value.status == 413
    assert asyncio.run(crowd()) == [408, 408, 429, 408, 429]  # every place was given back


def test_a_stopped_listener_refuses_though_another_process_holds_the_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        mine = [one for one in supervisor.listening_sockets() if one.getsockname() == door.getsockname()]
        assert len(mine) == 1
        socket.create_connection(door.getsockname(), 1).close()
        supervisor.stop_accepting(mine)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(door.getsockname(), 1)
        supervisor.stop_accepting(mine)  # again does nothing


CHILD = "import time; from tunectl.serving import supervisor; supervisor.die_with_parent(); print('up', flush=True); time.sleep(60)"
PARENT = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', sys.argv[1]]); time.sleep(60)"


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_worker_ends_when_its_supervisor_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE)
    assert parent.stdout.readline() == b"up\n"
    parent.kill()
    assert parent.stdout.read() == b""  # its end comes when the child has closed it too
    parent.stdout.close()
    parent.wait()

"""What one client without a key may cost, on real sockets: requests sent ahead, answers not read, bodies that stop half-way."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tunectl.backends.web import bounded_http

pytest.importorskip("uvicorn")
PROTOCOLS = ["httptools", "h11"]
UNREAD, PLACES = 1.0, 20
PART, PARTS = b"a" * 262_144, 48
LEFT: list[str] = []
"""Paths whose clients the application knows to have left."""


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body; then /large sends 12 MiB in parts, /whole in one, /late a word after a while, and others their path."""
    while (event := await receive()).get("more_body"):
        pass
    if event["type"] == "http.disconnect":
        return
    path = scope["path"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if path == "/late":
        import asyncio

        for _ in range(3):
            await asyncio.sleep(1.2 * UNREAD)
            await send({"type": "http.response.body", "body": b"late ", "more_body": True})
    if path == "/watched":
        while (await receive())["type"] != "http.disconnect":
            pass
        LEFT.append(path)
        return
    for _ in range(PARTS if path == "/large" else 0):
        await send({"type": "http.response.body", "body": PART, "more_body": True})
    await send({"type": "http.response.body", "body": PART * PARTS if path == "/whole" else path.encode()})


@pytest.fixture(params=PROTOCOLS)
def port(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    pytest.importorskip(request.param)
    monkeypatch.setattr(bounded_http, "UNREAD_SECONDS", UNREAD, raising=False)
    monkeypatch.setattr(bounded_http, "MAX_CONNECTIONS", PLACES)
    LEFT.clear()
    listening = bounded_http.listen("127.0.0.1", 0)
    server = bounded_http.build_server(answer)
    server.config.http = bounded_http.build_protocol(request.param)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join(10)


def connect(port: int, words: bytes = b"") -> socket.socket:
    """A connection with a small buffer for what it receives."""
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.settimeout(10)
    line.connect(("127.0.0.1", port))
    line.sendall(words)
    return line


def request(path: str, more: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode()


def read(line: socket.socket) -> bytes | None:
    """The content of the answer; None where the connection was cut."""
    reply = http.client.HTTPResponse(line)
    try:
        reply.begin()
        return reply.read()
    except (ConnectionError, http.client.HTTPException):
        return None
    finally:
        reply.close()


def test_eight_requests_sent_ahead_are_answered_in_order(port: int) -> None:
    paths = [f"/{number}" for number in range(9)]
    with connect(
        port, b"".join(request(path) for path in paths[:-1]) + request(paths[-1], "Connection: close\r\n")
    ) as line:
        content = b""
        while part := line.recv(65536):
            content += part
    assert content.count(b"HTTP/1.1 200") == 9
    places = [content.index(f"\r\n{path}\r\n".encode()) for path in paths]
    assert places == sorted(places)


SERVER = """
import sys
from tunectl.backends.web import bounded_http
async def answer(scope, receive, send):
    await send({"type": "http.response.start", "status": 401, "headers": []})
    await send({"type": "http.response.body", "body": b"x"})
listening = bounded_http.listen("127.0.0.1", 0)
server = bounded_http.build_server(answer)
server.config.http = bounded_http.build_protocol(sys.argv[1])
print(listening.getsockname()[1], flush=True)
server.run(sockets=[listening])
"""


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_thousands_of_requests_sent_ahead_cost_little_memory(protocol: str) -> None:
    pytest.importorskip(protocol)
    with subprocess.Popen([sys.executable, "-c", SERVER, protocol], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            with connect(port, request("/", "Connection: close\r\n")) as line:
                assert read(line) == b"x"
            before = measure_peak(process.pid)
            lines = [connect(port) for _ in range(40)]
            for line in lines:
                line.setblocking(False)
                with suppress(OSError):
                    line.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 9000)
            with connect(port, request("/", "Connection: close\r\n")) as line:
                assert read(line) == b"x"
            for line in lines:
                line.close()
            grown = measure_peak(process.pid) - before
        finally:
            process.kill()
    assert grown < (
        8 if protocol == "httptools" else 24
    )  # MiB; h11 keeps what it has not parsed yet, one read for each


def measure_peak(process: int) -> float:
    """The largest memory of a process so far, in MiB."""
    words = Path(f"/proc/{process}/status").read_text().partition("VmHWM:")[2]
    return int(words.split()[0]) / 1024


@pytest.mark.parametrize(
    ("path", "header"),
    [("/large", ""), ("/whole", ""), ("/whole", "Connection: close\r\n")],
    ids=["parts", "whole", "close"],
)
def test_who_does_not_read_is_cut(port: int, path: str, header: str) -> None:
    with connect(port, request(path, header)) as line:
        time.sleep(3 * UNREAD)
        assert read(line) is None


def test_who_reads_slowly_is_not_cut(port: int) -> None:
    with connect(port, request("/large", "Connection: close\r\n")) as line:
        size, start = 0, time.monotonic()
        while time.monotonic() - start < 4 * UNREAD:
            size += len(line.recv(20_000))
            time.sleep(0.1)
        while part := line.recv(1 << 20):
            size += len(part)
    assert size > len(PART) * PARTS


def test_a_long_silence_of_the_server_is_not_cut(port: int) -> None:
    with connect(port, request("/late")) as line:
        assert read(line) == b"late late late /late"


def test_an_answer_that_is_cut_ends_even_where_another_request_was_sent_ahead(port: int) -> None:
    with connect(port, request("/watched") + request("/next")):
        time.sleep(0.5)
    deadline = time.monotonic() + 5
    while not LEFT and time.monotonic() < deadline:
        time.sleep(0.05)
    assert LEFT == ["/watched"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_who_asks_for_a_websocket_is_cut_like_everybody(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """BentoML's uvicorn would hand the connection over to a protocol without bounds; there are no WebSockets here."""
    import uvicorn
    from uvicorn import config

    pytest.importorskip(protocol)
    pytest.importorskip("wsproto")
    for table in (config.HTTP_PROTOCOLS, config.WS_PROTOCOLS):
        for name, value in [*table.items()]:
            monkeypatch.setitem(table, name, value)
    monkeypatch.setattr(bounded_http, "UNREAD_SECONDS", UNREAD)
    bounded_http.limit_protocols()

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await (answer(scope, receive, send) if scope["type"] == "http" else send({"type": "websocket.close"}))

    listening = bounded_http.listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(serve, http=protocol, lifespan="off", log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    port = listening.getsockname()[1]
    try:
        with connect(port, request("/here", handshake)) as line:
            assert read(line) == b"/here"
        with connect(port, request("/whole")) as line:
            time.sleep(0.3)
            line.sendall(request("/here", handshake))
            time.sleep(4 * UNREAD)
            assert not server.server_state.connections
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)


HALF = b"POST /half HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\na"


@pytest.mark.parametrize(
    "words", [HALF, request("/large"), request("/whole")], ids=["half a body", "unread", "unread whole"]
)
def test_idle_and_incomplete_connections_are_closed_for_new_requests(port: int, words: bytes) -> None:
    lines = []
    for _ in range(2 * PLACES):
        with suppress(ConnectionError):
            lines.append(connect(port, words))
    time.sleep(0.3)
    for _ in range(3):
        with connect(port, request("/here")) as line:
            assert read(line) == b"/here"
    for line in lines:
        line.close()


def test_an_upload_that_goes_on_and_an_answer_being_written_keep_their_places(port: int) -> None:
    with (
        connect(port, b"POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 60\r\n\r\n") as upload,
        connect(port, request("/late")) as late,
    ):
        lines = []
        for _ in range(60):
            with suppress(ConnectionError):
                lines.append(connect(port, HALF))
            upload.sendall(b"a")
            time.sleep(0.02)
        assert read(upload) == b"/up"
        assert read(late) == b"late late late /late"
    for line in lines:
        line.close()

"""Clients that hold things up, on the real server: heads, silence, drips, slow uploads."""

from __future__ import annotations

import http.client
import socket
import time
from contextlib import ExitStack, suppress

import pytest
from half_uploads import hold_half_uploads
from serving_process import Server

from tunectl.backends.web.bounded_http import HEAD_SECONDS, IDLE_SECONDS

HI = [{"role": "user", "content": "hi"}]


def connect(server: Server, words: bytes = b"") -> socket.socket:
    line = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    line.sendall(words)
    return line


def measure_health(server: Server) -> float:
    start = time.monotonic()
    assert server.call("/healthz", key=None)[0] == 200
    return time.monotonic() - start


def test_a_megabyte_of_headers_is_refused(server: Server) -> None:
    status = None
    with connect(server, b"GET /healthz HTTP/1.1\r\nHost: x\r\n") as line:
        with suppress(ConnectionError):
            for _ in range(256):
                line.sendall(b"X-A: " + b"a" * 4000 + b"\r\n")
        with suppress(ConnectionError, http.client.HTTPException):
            reply = http.client.HTTPResponse(line)
            reply.begin()
            status = reply.status
    assert status in (None, 400, 431)
    assert measure_health(server) < 1


def test_silence_and_half_a_head_are_closed(server: Server) -> None:
    idle, half = connect(server), connect(server, b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ")
    start = time.monotonic()
    for line in (idle, half):
        line.settimeout(15)
        with line, suppress(ConnectionError):
            assert line.recv(1000) == b""
    assert IDLE_SECONDS - 1 < time.monotonic() - start < HEAD_SECONDS + 5


def test_slow_uploads_delay_no_other_request(server: Server) -> None:
    secret = server.key("slow", ["chat"])
    time.sleep(1.5)  # keys are looked at every second
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    ).encode()
    lines = [connect(server, head) for _ in range(200)]
    assert measure_health(server) < 1
    status, _, _ = server.call("/v1/chat/completions", {"model": "shop", "messages": HI, "max_tokens": 2})
    assert status == 200
    refused = 0
    for line in lines:
        line.settimeout(0.05)
        with suppress(TimeoutError, ConnectionError):
            refused += line.recv(100).startswith(b"HTTP/1.1 429")
        line.close()
    assert refused >= 150


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/arena/enter", "application/x-www-form-urlencoded"), ("/v1/chat/completions", "application/json")],
)
def test_health_is_told_beside_half_uploads_without_a_key(server: Server, path: str, kind: str) -> None:
    with hold_half_uploads(server.port, path, kind):
        assert measure_health(server) < 1


def test_unread_answers_delay_no_other_request(server: Server) -> None:
    with ExitStack() as lines:
        for _ in range(560):
            lines.enter_context(connect(server, b"GET /arena/assets/htmx-4.0.1.min.js HTTP/1.1\r\nHost: x\r\n\r\n" * 9))
        measure_health(server)  # behind 5,000 answers that are being written
        assert measure_health(server) < 1

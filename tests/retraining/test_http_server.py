"""Requests on a real socket to the web server of monitor and retrain controller: bodies, drips, bugs."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tunectl.backends.web import http_server
from tunectl.backends.web.http_server import HttpRequest, HttpResponse, HttpServer

POST = b"POST /webhook HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def answer(asked: HttpRequest) -> HttpResponse:
    if asked.body == b"bug":
        raise RuntimeError("a bug")
    return HttpResponse(asked.body or asked.path.encode())


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpServer]:
    monkeypatch.setattr(http_server, "BODY_SECONDS", 0.4)
    made = HttpServer(
        "retrain",
        "127.0.0.1",
        0,
        answer,
        verify=lambda secret, opened_by: None,
        unknown="look",
        keyless=lambda: True,
        limit_body=lambda path: 10,
    )
    made.open()
    yield made
    made.close()


def line(opened: HttpServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", opened.port), timeout=10)


def asked(
    one: socket.socket, words: bytes = b"GET /runs/x?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
) -> tuple[int, bytes]:
    """Status and content of the answer; 0 where the line was closed."""
    reply = http.client.HTTPResponse(one)
    try:
        one.sendall(words)
        reply.begin()
        return reply.status, reply.read()
    except ConnectionError:
        return 0, b""
    finally:
        reply.close()


def test_who_drips_a_body_is_refused(opened: HttpServer) -> None:
    start = time.monotonic()
    with line(opened) as one:
        one.settimeout(0.1)
        one.sendall(POST + b"Content-Length: 9\r\n\r\n")
        content = b""
        with suppress(ConnectionError):
            while time.monotonic() - start < 5 and not content:
                one.sendall(b"a") if time.monotonic() - start < 0.3 else None
                with suppress(TimeoutError):
                    content += one.recv(1000)
    assert content.startswith(b"HTTP/1.1 408")
    assert 0.3 < time.monotonic() - start < 3


def test_a_line_that_is_kept_has_its_time_again_for_each_request(opened: HttpServer) -> None:
    with line(opened) as one:
        for _ in range(3):
            assert asked(one) == (200, b"/runs/x")
            time.sleep(0.25)
        assert asked(one, POST + b"Content-Length: 3\r\n\r\n" + b"abc") == (200, b"abc")
        assert asked(one, POST + b"Content-Length: 11\r\n\r\n")[0] == 413


def test_a_body_without_a_length_is_bounded_as_well(opened: HttpServer) -> None:
    chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    with line(opened) as one:
        assert asked(one, chunked + b"4\r\nabcd\r\n0\r\n\r\n") == (200, b"abcd")
        assert asked(one, chunked + b"b\r\nabcdefghijk\r\n0\r\n\r\n")[0] == 413


def test_a_bug_is_answered_and_logged(opened: HttpServer, caplog: pytest.LogCaptureFixture) -> None:
    with line(opened) as one:
        assert asked(one, POST + b"Content-Length: 3\r\n\r\nbug")[0] == 500
    assert "a bug" in caplog.text


def test_health_is_told_beside_connections_that_say_nothing(opened: HttpServer) -> None:
    idle = [line(opened) for _ in range(200)]
    start = time.monotonic()
    with line(opened) as one:
        assert asked(one, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") == (200, b"/healthz")
    assert time.monotonic() - start < 1
    for other in idle:
        other.close()

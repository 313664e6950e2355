"""Who comes in crowds, or drips, holds up nobody."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tunectl.backends.web import http_server
from tunectl.backends.web.http_server import HttpResponse, HttpServer


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpServer]:
    for name, value in (("MAX_CONNECTIONS", 3), ("ROOM", 0.05), ("SECONDS", 0.4), ("LINGER", 0.2)):
        monkeypatch.setattr(http_server, name, value)
    made = HttpServer(
        "watch", "127.0.0.1", 0, lambda asked: HttpResponse(asked.body or asked.path.encode()), largest=10
    )
    made.open()
    yield made
    made.close()


def line(opened: HttpServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", opened.port), timeout=10)


def asked(one: socket.socket, words: bytes = b"GET /page?x=1 HTTP/1.1\r\n\r\n") -> tuple[int, bytes]:
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


def test_one_line_more_than_there_is_room_for_is_closed(opened: HttpServer) -> None:
    lines = [line(opened) for _ in range(3)]
    assert all(asked(one) == (200, b"/page") for one in lines)
    with line(opened) as more:
        assert asked(more)[0] == 0
    lines[0].close()
    time.sleep(0.1)
    with line(opened) as again:
        assert asked(again) == (200, b"/page")
    for one in lines:
        one.close()


def dripped(one: socket.socket, begun: bytes) -> float:
    """Seconds until the other side hung up on somebody who sends a byte now and then."""
    start = time.monotonic()
    one.settimeout(0.1)
    with suppress(ConnectionError):
        while time.monotonic() - start < 5:
            one.sendall(begun)
            begun = b"a"
            with suppress(TimeoutError):
                if not one.recv(1):
                    break
    return time.monotonic() - start


@pytest.mark.parametrize("begun", [b"GET / HTTP/1.1\r\nX: ", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n"])
def test_who_drips_is_cut_off(opened: HttpServer, begun: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with line(opened) as one:
        assert 0.3 < dripped(one, begun) < 2
    assert "Traceback" not in capfd.readouterr().err


def test_a_line_that_is_kept_has_its_time_again_for_each_request(opened: HttpServer) -> None:
    with line(opened) as one:
        for _ in range(3):
            assert asked(one) == (200, b"/page")
            time.sleep(0.25)
        assert asked(one, b"POST /long HTTP/1.1\r\nContent-Length: 11\r\n\r\n")[0] == 413

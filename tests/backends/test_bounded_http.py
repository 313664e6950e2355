"""Connections of people without a key, on real sockets, with both protocols that uvicorn speaks."""

from __future__ import annotations

import http.client
import resource
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from serving_process import make_certificate

from tunectl.backends.web import bounded_http

pytest.importorskip("uvicorn")
SHORT = {"IDLE_SECONDS": 0.4, "HEAD_SECONDS": 0.8, "LINGER_SECONDS": 0.3, "MAX_CONNECTIONS": 20}


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the length of the body, once it is there."""
    size, more = 0, True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        size, more = size + len(event.get("body", b"")), event.get("more_body", False)
    content = str(size).encode()
    headers = [(b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


@pytest.fixture(params=["httptools", "h11"])
def port(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    if request.param == "httptools":
        pytest.importorskip("httptools")
    for name, value in SHORT.items():
        monkeypatch.setattr(bounded_http, name, value)
    listening = bounded_http.listen("127.0.0.1", 0)
    server = bounded_http.build_server(echo)
    server.config.http = bounded_http.build_protocol(request.param)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    port = listening.getsockname()[1]
    thread.start()
    yield port
    server.should_exit = True
    thread.join(10)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def ask(line: socket.socket, words: bytes = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") -> tuple[int, bytes]:
    """Status and content of the answer; 0 where the connection was closed."""
    reply = http.client.HTTPResponse(line)
    try:
        line.sendall(words)
        reply.begin()
        return reply.status, reply.read()
    except (ConnectionError, http.client.BadStatusLine):
        return 0, b""
    finally:
        reply.close()


def measure_close(line: socket.socket, begun: bytes = b"", *, drips: bool = False) -> float:
    """Seconds until the other side hung up on somebody who sends this, and a byte now and then."""
    start = time.monotonic()
    line.settimeout(0.05)
    with suppress(ConnectionError):
        line.sendall(begun)
        while time.monotonic() - start < 8:
            if drips:
                line.sendall(b"a")
            with suppress(TimeoutError):
                if not line.recv(65536):
                    break
    return time.monotonic() - start


def test_a_silent_connection_is_closed(port: int) -> None:
    with connect(port) as line:
        assert 0.3 < measure_close(line) < 3


@pytest.mark.parametrize("begun", [b"GET /", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: "])
def test_half_a_head_is_closed_however_it_drips(port: int, begun: bytes) -> None:
    for drips in (False, True):
        with connect(port) as line:
            assert 0.6 < measure_close(line, begun, drips=drips) < 4


def test_a_second_head_has_its_time_as_well(port: int) -> None:
    with connect(port) as line:
        assert ask(line) == (200, b"0")
        time.sleep(0.3)
        assert ask(line) == (200, b"0")
        assert 0.6 < measure_close(line, b"GET /", drips=True) < 4


def test_a_body_may_take_longer_than_a_head(port: int) -> None:
    with connect(port) as line:
        line.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n")
        for _ in range(11):
            time.sleep(0.12)
            line.sendall(b"a")
        assert ask(line, b"a") == (200, b"12")


ENDLESS = {
    "headers": b"X-A: " + b"a" * 4000 + b"\r\n",
    "one header": b"a" * 4000,
}


@pytest.mark.parametrize("kind", [*ENDLESS])
def test_a_head_without_end_costs_no_memory(port: int, kind: str) -> None:
    start = b"GET / HTTP/1.1\r\nHost: x\r\n" + (b"X-B: " if kind == "one header" else b"")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sent = _flood(port, start, ENDLESS[kind])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert sent in (None, 400, 431)
    assert grown < 16  # MiB; this process holds both ends


@pytest.mark.parametrize(
    ("start", "part"),
    [
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"a" * 4000),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n",
            b"X: " + b"a" * 4000 + b"\r\n",
        ),
    ],
    ids=["of a chunk", "trailers"],
)
def test_neither_do_headers_inside_a_body(port: int, start: bytes, part: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _flood(port, start, part)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 16


def _flood(port: int, start: bytes, part: bytes) -> int | None:
    """Send 64 MiB, of which a part is thrown away; the status of an answer, None where the connection was cut first."""
    with connect(port) as line:
        line.sendall(start)
        with suppress(ConnectionError):
            for _ in range(2**26 // len(part)):
                line.sendall(part)
        with suppress(ConnectionError, http.client.HTTPException):
            reply = http.client.HTTPResponse(line)
            reply.begin()
            return reply.status
    return None


def test_a_head_of_many_kilobytes_is_fine(port: int) -> None:
    with connect(port) as line:
        assert ask(line, b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 60_000 + b"\r\n\r\n") == (200, b"0")
        large = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"a" * 1_000_000
        assert ask(line, large) == (200, b"1000000")
        pieces = b"".join(b"5\r\naaaaa\r\n" for _ in range(50_000))
        chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"
        assert ask(line, chunked) == (200, b"250000")


@pytest.mark.parametrize("more", [b"Content-Length: 1\r\n\r\na", b"\r\n"], ids=["body", "none"])
def test_a_request_has_at_most_a_hundred_headers(port: int, more: bytes) -> None:
    start, end = b"POST / HTTP/1.1\r\nHost: x\r\n", more
    most = 99 - end.count(b":")
    with connect(port) as line:
        for _ in range(2):
            assert ask(line, start + b"a:\r\n" * most + end)[0] == 200
        assert ask(line, start + b"a:\r\n" * (most + 1) + end)[0] == 431
        assert measure_close(line) < 3
    with connect(port) as line:  # the last of several requests sent ahead
        assert ask(line, (start + end) * 3 + start + b"a:\r\n" * 15_900 + end)[0] in (0, 200)
        assert measure_close(line) < 3


def test_trailers_count_as_headers(port: int) -> None:
    start = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    with connect(port) as line:
        assert ask(line, start + b"a:\r\n" * 50 + b"\r\n") == (200, b"1")
        assert ask(line, start + b"a:\r\n" * 101 + b"\r\n")[0] != 200


@pytest.mark.parametrize("wanted", [b"websocket", b"h2c"])
def test_the_body_of_a_request_for_another_protocol_is_no_request(port: int, wanted: bytes) -> None:
    """Behind a proxy whose users share connections, somebody else would get its answer."""
    hidden = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    more = b"Connection: upgrade\r\nUpgrade: " + wanted + b"\r\nContent-Length: %d\r\n\r\n" % len(hidden)
    content = b""
    with connect(port) as line:
        line.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n" + more)
        time.sleep(0.2)
        with suppress(ConnectionError):
            line.sendall(hidden)
            while part := line.recv(65536):
                content += part
    assert content.count(b"HTTP/1.1 200") == 1


def test_a_body_of_two_lengths_is_refused(port: int) -> None:
    """A proxy that believes the other one would take its end for the next request, or the next request for its end."""
    chunked = b"Transfer-Encoding: chunked\r\n"
    for lengths in (b"Content-Length: 5\r\n" + chunked, chunked + b"Content-Length: 5\r\n"):
        with connect(port) as line:
            assert ask(line, b"POST / HTTP/1.1\r\nHost: x\r\n" + lengths + b"\r\n0\r\n\r\n")[0] == 400
            assert line.recv(1) == b""


def test_the_longest_idle_connection_is_closed_first(port: int) -> None:
    lines = [connect(port) for _ in range(40)]
    with connect(port) as one:
        assert ask(one) == (200, b"0")
    for line in lines:
        line.close()


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``limit_protocols`` does, for one test."""
    from uvicorn.config import HTTP_PROTOCOLS, WS_PROTOCOLS, Config

    for table in (HTTP_PROTOCOLS, WS_PROTOCOLS):
        for name, value in [*table.items()]:
            monkeypatch.setitem(table, name, value)
    monkeypatch.setattr(Config, "tls", None, raising=False)
    monkeypatch.delattr(Config, "tls")
    for method in ("load", "get_loop_factory"):
        monkeypatch.setattr(Config, method, getattr(Config, method))
    bounded_http.limit_protocols()


def test_uvicorn_of_bentoml_uses_the_bounded_protocol(limited: None) -> None:
    import uvicorn

    for http_name in ("auto", "h11"):
        config = uvicorn.Config(echo, http=http_name)
        config.load()
        assert config.http_protocol_class.__name__ == "BoundedProtocol"
        assert config.ws_protocol_class is None
    service = Path(bounded_http.__file__).parents[2] / "services" / "bento_service.py"
    assert "limit_protocols()" in service.read_text()


@pytest.fixture(params=["h11", "httptools"])
def tls_port(
    request: pytest.FixtureRequest, limited: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[tuple[int, ssl.SSLContext]]:
    import uvicorn

    pytest.importorskip(request.param)
    for name, value in SHORT.items():
        monkeypatch.setattr(bounded_http, name, value)
    make_certificate(tmp_path)
    certificate, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    config = uvicorn.Config(
        echo, http=request.param, lifespan="off", log_config=None, access_log=False, log_level="warning",
        timeout_keep_alive=0.4, ssl_certfile=certificate, ssl_keyfile=key,
    )  # fmt: skip
    server, listening = uvicorn.Server(config), bounded_http.listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield listening.getsockname()[1], ssl.create_default_context(cafile=certificate)
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


def test_a_handshake_of_tls_has_the_time_of_a_head(tls_port: tuple[int, ssl.SSLContext]) -> None:
    port, trusted = tls_port
    with connect(port) as silent, connect(port) as begun, connect(port) as plain:
        assert 0.5 < measure_close(silent) < 3
        assert measure_close(begun, b"\x16\x03\x01\x02\x00") < 3
        assert measure_close(plain, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") < 3
    with trusted.wrap_socket(connect(port), server_hostname="localhost") as line:
        assert ask(line, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n" + b"a" * 70_000) == (
            200,
            b"70000",
        )
        assert ask(line) == (200, b"0")
        assert 0.3 < measure_close(line) < 3, "and then it has the bounds of every connection"


def test_handshakes_count_as_connections(tls_port: tuple[int, ssl.SSLContext]) -> None:
    port, trusted = tls_port
    with ExitStack() as stack:
        lines = [stack.enter_context(connect(port)) for _ in range(40)]
        with trusted.wrap_socket(connect(port), server_hostname="localhost") as line:
            assert ask(line) == (200, b"0")
        for other in lines[:20]:  # the oldest ones gave their places up
            other.settimeout(0.2)
            with suppress(ConnectionError):
                assert other.recv(1) == b""

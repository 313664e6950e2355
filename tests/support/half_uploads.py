"""Clients without a key that begin to send a form and stop: more than a service has places for connections."""

from __future__ import annotations

import contextlib
import http.client
import resource
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from tunectl.backends.web import bounded_http

COUNT = bounded_http.MAX_CONNECTIONS + 48
FORM = "application/x-www-form-urlencoded"


@contextlib.contextmanager
def hold_half_uploads(port: int, path: str, kind: str = FORM) -> Iterator[None]:
    """Keep connections open that have sent a head and one byte of a body."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # some tests hold both ends in one process
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nContent-Type: {kind}\r\n"
    lines: list[socket.socket] = []
    try:
        for _ in range(3):  # places that the first ones lost are taken again
            lines = [line for line in lines if is_open(line)]
            while len(lines) < COUNT:
                lines.append(socket.create_connection(("127.0.0.1", port), timeout=10))
                with contextlib.suppress(ConnectionError):
                    lines[-1].sendall(f"{head}Content-Length: 1000\r\n\r\na".encode())
                lines[-1].setblocking(False)
            time.sleep(0.2)
        yield
    finally:
        for line in lines:
            line.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))


def is_open(line: socket.socket) -> bool:
    """Whether the other side has not closed this connection; closes it otherwise."""
    with contextlib.suppress(BlockingIOError):
        try:
            content = line.recv(1, socket.MSG_PEEK)
        except ConnectionError:
            content = b""
        if not content:
            line.close()
        return bool(content)
    return True


def measure_health(port: int, path: str = "/healthz") -> float:
    """Seconds until a page that is open to all has answered 200."""
    start = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers={"Host": "localhost"})
    assert connection.getresponse().status == 200
    connection.close()
    return time.monotonic() - start


@contextlib.contextmanager
def serve(application: Any) -> Iterator[int]:
    """Serve an application as the services do, in a thread; yields the port."""
    listening = bounded_http.listen("127.0.0.1", 0)
    server = bounded_http.build_server(application)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)

"""The web server of programs that few people look at. Standard library only, a thread a line.

Nobody holds it up: so many lines are open at once and no more, a request is there a while after its first byte however slowly
it drips, and no body is longer than was agreed.
"""

from __future__ import annotations

import io
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from threading import BoundedSemaphore, Thread
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tunectl.access.guard import SAFE_METHODS, RequestHead, list_hosts
from tunectl.access.security_headers import SECURITY_HEADERS
from tunectl.core import logging_setup
from tunectl.core.errors import InfrastructureError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_CONNECTIONS: Final = 64
"""Open at once. One more waits for ``ROOM`` seconds, then it is closed: to whoever asks a failure of the network, to be tried again."""
ROOM: Final = 1.0
SECONDS: Final = 30.0
"""Longest silence of a line, and longest time for a request from its first byte to its last."""
LINGER: Final = 2.0
"""Seconds in which the rest of a body that is refused is still read."""
DIGITS: Final = 12
"""Longest Content-Length that is a number to us."""


class HttpRequest(NamedTuple):
    """What is asked."""

    method: str
    path: str
    """Without what stands behind a question mark."""
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes = b""

    @property
    def head(self) -> RequestHead:
        """What the guard looks at."""
        return RequestHead(self.method, self.path, self.headers)


class HttpResponse(NamedTuple):
    """What is answered."""

    content: bytes
    kind: str = "text/html; charset=utf-8"
    status: int = 200
    headers: Mapping[str, str] = MappingProxyType({})
    """More of them, or others than the usual ones."""


class HttpServer:
    """Answers on a port, in threads of its own."""

    def __init__(
        self, program: str, address: str, port: int, answer: Callable[[HttpRequest], HttpResponse], *, largest: int = 0
    ) -> None:
        """Open the port; 0 takes any. ``program`` is its verb, and its section. ``largest`` body in bytes. ``answer`` never raises.

        Raises  InfrastructureError for a port in use.
        """
        host = "127.0.0.1" if address == "localhost" else address
        self.local = ip_address(host).is_loopback
        """Whether nobody but this machine can ask."""
        self.hosts = list_hosts(host) if self.local else None
        """The names that it answers to where no key is asked for; None where one always is."""
        handler = type("Handler", (_Handler,), {"answer": staticmethod(answer), "largest": largest, "program": program})
        try:
            self._server = _Server(host, port, handler)
        except OSError as error:
            raise InfrastructureError(
                f"{program}.port = {port}: {host}:{port} cannot be used: {error.strerror}",
                hint=f"close that program, or choose another port: tunectl {program} {program}.port={min(port + 1, 65535)}",
            ) from error

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def open(self) -> None:
        """Answer from now on."""
        Thread(target=self._server.serve_forever, name="door", daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()


class _TimedSocket(io.RawIOBase):
    """What somebody sends; a request that is not whole in time is cut off."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._until: float | None = None

    def expect(self) -> None:
        """Wait for another request; its time begins with its first byte."""
        self._until = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        left = SECONDS if self._until is None else self._until - monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        count = self._socket.recv_into(buffer)
        self._socket.settimeout(SECONDS)  # for the answer
        if self._until is None:
            self._until = monotonic() + SECONDS
        return count


class _Handler(BaseHTTPRequestHandler):
    """The requests of one line."""

    protocol_version = "HTTP/1.1"
    timeout = SECONDS
    answer: Callable[[HttpRequest], HttpResponse]
    largest: int
    program: str

    def setup(self) -> None:
        super().setup()
        self._line = _TimedSocket(self.connection)
        self.rfile.close()
        self.rfile = io.BufferedReader(self._line)

    def handle_one_request(self) -> None:
        self._line.expect()
        super().handle_one_request()

    def _any(self) -> None:
        length = self.headers.get("Content-Length", "0")
        size = int(length) if length.isascii() and length.isdigit() and len(length) <= DIGITS else -1
        if size < 0 or self.headers.get("Transfer-Encoding"):
            self._refuse(411, "Content-Length is needed")
        elif size > self.largest:
            self._refuse(413, f"at most {self.largest} bytes are read")
            self._linger(size)
        else:
            body = self.rfile.read(size)
            if len(body) < size:  # whoever sent it has left: half of it is nobody's word
                self.close_connection = True
                return
            path = self.path.partition("?")[0]
            headers = {name.lower(): value for name, value in self.headers.items()}
            self._send(self.answer(HttpRequest(self.command, path, headers, body)))

    do_GET = do_HEAD = do_POST = _any  # noqa: N815  the library's names

    def _refuse(self, status: int, words: str) -> None:
        """Say no, and hang up: the line holds what was not read."""
        self.close_connection = True
        self._send(HttpResponse(f"{words}\n".encode(), "text/plain; charset=utf-8", status))

    def _linger(self, size: int) -> None:
        """Read on for a moment after a refusal: closing while somebody still sends would take the answer from them."""
        self.wfile.flush()
        self.connection.settimeout(LINGER)
        until = monotonic() + LINGER
        with suppress(OSError):
            while size > 0 and monotonic() < until and (chunk := self.connection.recv(65_536)):
                size -= len(chunk)

    def _send(self, reply: HttpResponse) -> None:
        self.send_response(reply.status)
        told = {**SECURITY_HEADERS, "Content-Type": reply.kind, "Content-Length": str(len(reply.content))}
        told |= reply.headers
        if reply.status == 401 and self.command in SAFE_METHODS:
            told["WWW-Authenticate"] = f'Basic realm="tunectl {self.program}"'
        if self.close_connection:
            told["Connection"] = "close"
        for name, value in told.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
        """Say nothing: what people make up does not belong in logs."""


class _Server(ThreadingHTTPServer):
    """Threads that die with the process, and no more of them than ``MAX_CONNECTIONS``."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, handler: Callable[..., BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._room = BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__((host, port), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give the line a thread, where there is room for one more."""
        if not self._room.acquire(timeout=ROOM):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except Exception:
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """All requests of the line."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Nobody waits any more where the line is dead; anything else is our bug."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            logging_setup.get_logger(__name__).error("a request failed", exc_info=error)

"""HTTP/1.1 for uvicorn with bounds on the size and time of request heads, so that clients without a key cannot exhaust it.

Uvicorn limits neither the bytes of a head (with httptools) nor the time that one takes, and waits for ever for the first byte of a
connection. Here a head has ``MAX_HEAD_BYTES`` and ``HEAD_SECONDS`` from its first byte on, a silent connection ``IDLE_SECONDS``,
and where more than ``MAX_CONNECTIONS`` are open, the one that has waited longest for a request is closed.
"""

from __future__ import annotations

import asyncio
import importlib.util
import socket
from functools import cache
from typing import Any, Final

from tunectl.core.optional import import_optional

MAX_HEAD_BYTES: Final = 65_536
"""Bytes of a request line and headers; also of chunk headers and trailers that come between two parts of a body."""
HEAD_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 5.0
MAX_CONNECTIONS: Final = 512
LINGER_SECONDS: Final = 1.0
"""Seconds for which further input is discarded after a refusal; closing at once would lose the client the answer."""
_WORDS: Final = f"the head of a request has at most {MAX_HEAD_BYTES} bytes\n".encode()
TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"connection: close\r\ncontent-length: " + str(len(_WORDS)).encode() + b"\r\n\r\n" + _WORDS
)


def limit_protocols() -> None:
    """Make every uvicorn that is started later in this process use the bounded protocol."""
    config = import_optional("uvicorn.config", extra="annotate")
    for name in ("auto", "h11", "httptools"):
        if name != "httptools" or importlib.util.find_spec("httptools") is not None:
            config.HTTP_PROTOCOLS[name] = build_protocol(name)


def build_server(application: Any) -> Any:
    """Return a uvicorn server of an ASGI application, which the caller runs on a listening socket."""
    uvicorn = import_optional("uvicorn", extra="annotate")
    return uvicorn.Server(
        uvicorn.Config(
            application,
            http=build_protocol("auto"),
            loop="asyncio",  # uvloop takes 3 MB more, and these servers get few requests
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=5,
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on ``host`` and ``port`` of this machine; port 0 takes a free one.

    Raises  OSError where it cannot.
    """
    result = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    result.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        result.bind((host, port))
        result.listen(128)
    except OSError:
        result.close()
        raise
    return result


@cache
def build_protocol(name: str) -> Any:
    """Return the bounded variant of uvicorn's protocol class ``h11`` or ``httptools``; ``auto`` is the faster one installed."""
    if name == "auto":
        name = "h11" if importlib.util.find_spec("httptools") is None else "httptools"
    module = import_optional(f"uvicorn.protocols.http.{name}_impl", extra="annotate")
    if name == "h11":
        # h11 itself bounds the size of a head
        return type("BoundedProtocol", (_BoundedConnection, module.H11Protocol), {})
    return type("BoundedProtocol", (_BoundedConnection, _CountedHead, module.HttpToolsProtocol), {})


class _BoundedConnection(asyncio.Protocol):
    """A connection with a timer; first base class before uvicorn's protocol."""

    connections: set[Any]
    cycle: Any
    loop: asyncio.AbstractEventLoop
    transport: Any
    timeout_keep_alive_handler: Any
    since = 0.0
    """When the timer was started."""
    _timer: asyncio.TimerHandle | None = None
    _begun = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.start_timer(IDLE_SECONDS)
        if len(self.connections) > MAX_CONNECTIONS:
            waiting = [connection for connection in self.connections if connection.waits()]
            min(waiting, key=lambda item: item.since).transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._begun:
            self._begun = True
            self.stop_timer()
        super().data_received(data)
        if not self.waits():
            self.stop_timer()
        elif self._timer is None and not self.transport.is_closing():
            self.start_timer(HEAD_SECONDS)

    def waits(self) -> bool:
        """Return whether no request is being read or answered."""
        return self.cycle is None or self.cycle.response_complete

    def start_timer(self, seconds: float) -> None:
        self.since = self.loop.time()
        self._timer = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _CountedHead(asyncio.Protocol):
    """Counts bytes that a parser has not completed yet; first base class before httptools' protocol."""

    transport: Any
    start_timer: Any
    stop_timer: Any
    waits: Any
    _unparsed = 0
    _refused = False

    def data_received(self, data: bytes) -> None:
        while data and not self._refused and not self.transport.is_closing():
            room = MAX_HEAD_BYTES - self._unparsed
            if room <= 0:
                self._refuse()
                return
            piece, data = data[:room], data[room:]
            self._unparsed += len(piece)
            super().data_received(piece)

    def _refuse(self) -> None:
        self._refused = True
        if not self.waits():  # in the middle of a body
            self.transport.close()
            return
        self.transport.write(TOO_LARGE)
        self.stop_timer()
        self.start_timer(LINGER_SECONDS)

    def on_headers_complete(self) -> None:
        self._unparsed = 0
        super().on_headers_complete()  # type: ignore[misc]

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        super().on_body(body)  # type: ignore[misc]

    def on_message_complete(self) -> None:
        self._unparsed = 0
        super().on_message_complete()  # type: ignore[misc]

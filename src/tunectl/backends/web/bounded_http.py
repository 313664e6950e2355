"""HTTP/1.1 for uvicorn with bounds on what one connection costs, so that clients without a key cannot exhaust it.

Uvicorn limits neither the bytes of a head (with httptools) nor its headers nor the time that one takes, parses any number of
requests before it answers the first, and waits for ever for the first byte of a connection and for a client that does not read.
Here a head has ``MAX_HEAD_BYTES``, ``MAX_HEADERS`` and ``HEAD_SECONDS`` from its first byte on, a silent connection ``IDLE_SECONDS``, unread bytes
``UNREAD_SECONDS``, and at most ``MAX_PIPELINED`` requests wait behind the one being answered. Where more than
``MAX_CONNECTIONS`` are open, the client that has kept the server waiting longest is cut. With TLS the handshake is part of it: a server of
asyncio would give it a minute and count it nowhere.
"""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import sys
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from tunectl.core.optional import import_optional

if TYPE_CHECKING:
    import ssl

MAX_HEAD_BYTES: Final = 65_536
"""Bytes of a request line and headers; also of chunk headers and trailers that come between two parts of a body."""
MAX_HEADERS: Final = 100
"""Headers of a request with its trailers: an empty one has 4 bytes, and takes 30 times as many here."""
HEAD_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 5.0
UNREAD_SECONDS: Final = 30.0
"""Seconds for which a client may take none of the bytes that wait for it."""
UNREAD_CHECKS: Final = 6
"""How often it is looked at in that time."""
MAX_PIPELINED: Final = 8
MAX_CONNECTIONS: Final = 512
LINGER_SECONDS: Final = 1.0
"""Seconds for which further input is discarded after a refusal; closing at once would lose the client the answer."""
_TOO_LARGE_BODY: Final = (
    f"the head of a request has at most {MAX_HEAD_BYTES} bytes and {MAX_HEADERS} headers\n".encode()
)
TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"connection: close\r\ncontent-length: " + str(len(_TOO_LARGE_BODY)).encode() + b"\r\n\r\n" + _TOO_LARGE_BODY
)


def limit_protocols() -> None:
    """Make every uvicorn that is started later in this process use the bounded protocol, and no WebSockets, which have no bounds."""
    config = import_optional("uvicorn.config", extra="annotate")
    for name in ("auto", "h11", "httptools"):
        if name != "httptools" or importlib.util.find_spec("httptools") is not None:
            config.HTTP_PROTOCOLS[name] = build_protocol(name)
    config.WS_PROTOCOLS["auto"] = None
    if not hasattr(config.Config, "tls"):
        _leave_tls_to_protocol(config.Config)


def _leave_tls_to_protocol(config_class: Any) -> None:
    """Make a loaded configuration of uvicorn have TLS's context in ``tls``, and none for the listening socket: see ``connection_made``."""
    load, get_loop_factory = config_class.load, config_class.get_loop_factory

    def load_config(config: Any) -> None:
        load(config)
        if issubclass(config.http_protocol_class, _BoundedConnection):
            config.tls, config.ssl = config.ssl, None

    def choose_loop(config: Any) -> Any:
        if config.is_ssl:  # uvloop may read the first bytes of a handshake before it is told that one begins
            config.loop = "asyncio"
        return get_loop_factory(config)

    config_class.tls, config_class.load, config_class.get_loop_factory = None, load_config, choose_loop


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

    Raises  OSError where the address is not available.
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
        return type("BoundedProtocol", (_BoundedConnection, _CountedEvents, module.H11Protocol), {})
    return type("BoundedProtocol", (_BoundedConnection, _CountedHead, module.HttpToolsProtocol), {})


class _EarlyBytes(asyncio.Protocol):
    """What arrives between the end of a TLS handshake and the moment at which its connection hears of it."""

    data = b""
    lost = False

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


class _BoundedConnection(asyncio.Protocol):
    """A connection with timers; first base class before uvicorn's protocol."""

    config: Any
    connections: set[Any]
    cycle: Any
    loop: asyncio.AbstractEventLoop
    transport: Any
    timeout_keep_alive_handler: Any
    pipeline: Any = ()
    """Requests that wait behind the one being answered; ``cycle`` is the last of them. The parser h11 has none."""
    since = 0.0
    """When the client last went on: connected, sent what was waited for, or got its answer."""
    stalls = 0
    """Checks in a row at which bytes waited for the client, and it had taken none since the check before."""
    _acknowledged = -1
    _timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None
    _handshake: asyncio.Task[None] | None = None
    _begun = False
    _cut = False

    def connection_made(self, transport: Any) -> None:
        tls = getattr(self.config, "tls", None)
        if tls is not None and self._handshake is None:
            transport.pause_reading()  # what arrives is for the handshake
            self.transport, self.since = transport, self.loop.time()
            self.connections.add(self)
            self._handshake = self.loop.create_task(self._shake_hands(transport, tls))
        else:
            super().connection_made(transport)
            self.start_timer(IDLE_SECONDS)
            self._schedule_check()
        self._make_room()

    async def _shake_hands(self, transport: Any, tls: ssl.SSLContext) -> None:
        early, secured = _EarlyBytes(), None
        try:
            if not transport.is_closing():
                with suppress(OSError):  # also what TLS refuses, and where the time is over
                    secured = await self.loop.start_tls(
                        transport, early, tls, server_side=True, ssl_handshake_timeout=HEAD_SECONDS
                    )
        finally:
            if secured is None or early.lost:
                self.connections.discard(self)
        if secured is None or early.lost:
            return
        secured.set_protocol(self)
        self.connection_made(secured)
        if early.data:
            self.data_received(early.data)

    def _make_room(self) -> None:
        if len(self.connections) > MAX_CONNECTIONS:
            others = (
                item for item in self.connections if item is not self and (item.waits_for_client() or item.pipeline)
            )
            min(others, key=lambda item: item.rank(), default=self).cut()

    def connection_lost(self, exc: Exception | None) -> None:
        self.stop_timer()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._begun:
            self._begun = True
            self.stop_timer()
        super().data_received(data)
        if not self.waits():
            self.since = self.loop.time()
            self.stop_timer()
        elif self._timer is None and not self.transport.is_closing():
            self.start_timer(HEAD_SECONDS)

    def on_response_complete(self) -> None:
        self.since = self.loop.time()
        super().on_response_complete()  # type: ignore[misc]

    def cut(self) -> None:
        """Close the connection at once; closing in order would first wait for the client to read."""
        self._cut = True
        self.transport.abort()

    def waits_for_client(self) -> bool:
        """Return whether the server can do nothing before the client sends or reads."""
        if self._cut:  # it is on the list until the event loop comes round
            return False
        return (
            self.waits()
            or (self.cycle.more_body and not self.pipeline)
            or self.transport.is_closing()
            or self.count_unsent() > 0
        )

    def count_unsent(self) -> int:
        """Return the bytes that wait for the client in this process."""
        try:
            return int(self.transport.get_write_buffer_size())
        except AttributeError:  # asyncio's TLS, once it was closed twice: uvicorn does so when it stops
            return 0

    def rank(self) -> tuple[int, int, float]:
        """Return the place in the order of cutting: who sends nothing, who does not read, who sends requests ahead; longest first."""
        if self.count_unsent():
            return 1, -self.stalls, self.since
        return (0 if self.waits_for_client() else 2), 0, self.since

    def _schedule_check(self) -> None:
        self._unread_timer = self.loop.call_later(UNREAD_SECONDS / UNREAD_CHECKS, self._check_unread)

    def _check_unread(self) -> None:
        acknowledged = self._measure_acknowledged() if self.count_unsent() else -1
        self.stalls = self.stalls + 1 if acknowledged == self._acknowledged != -1 else 0
        self._acknowledged = acknowledged
        if self.stalls >= UNREAD_CHECKS:
            self.cut()
        else:
            self._schedule_check()

    def _measure_acknowledged(self) -> int:
        """Return a number that changes when the client takes bytes: those that it acknowledged, where the system counts them.

        The length of the buffer is too coarse: the system fills its own only when a third of that, perhaps a megabyte, is free.
        """
        with suppress(AttributeError, OSError):  # not Linux
            info = self.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128)
            return int.from_bytes(info[120:], sys.byteorder) or self.count_unsent()
        return self.count_unsent()

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


class _CountedEvents(asyncio.Protocol):
    """Counts headers that h11, which bounds the bytes of a head, has parsed, and refuses two lengths; first base class before its protocol."""

    conn: Any
    transport: Any
    waits: Any
    _next_event: Any
    _crowded = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._next_event, self.conn.next_event = self.conn.next_event, self._check_headers

    def _check_headers(self) -> Any:
        event = self._next_event()
        if len(getattr(event, "headers", ())) > MAX_HEADERS:
            self._crowded = True
            raise import_optional("h11", extra="annotate").RemoteProtocolError("too many headers")
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in getattr(event, "headers", ())}:
            raise import_optional("h11", extra="annotate").RemoteProtocolError("a body has one length")  # as httptools
        return event

    def send_400_response(self, msg: str) -> None:
        if not self._crowded:
            super().send_400_response(msg)  # type: ignore[misc]
            return
        if self.waits():
            self.transport.write(TOO_LARGE)
        self.transport.close()


class _CountedHead(asyncio.Protocol):
    """Counts bytes that a parser has not completed yet, headers, and requests sent ahead; first base class before httptools' protocol."""

    transport: Any
    cycle: Any
    headers: list[tuple[bytes, bytes]]
    pipeline: Any
    start_timer: Any
    stop_timer: Any
    waits: Any
    _unparsed = 0
    _refused = False
    _crowded = False
    _answered: Any = None
    """The request that is being answered."""

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

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._answered is not None and not self._answered.response_complete:  # uvicorn tells the last one sent only
            self._answered.disconnected = True
            self._answered.message_event.set()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)  # type: ignore[misc]

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= MAX_HEADERS:
            self._crowded = True
            raise ValueError("too many headers")  # the parser stops, and ``send_400_response`` is called
        super().on_header(name, value)  # type: ignore[misc]

    def send_400_response(self, msg: str) -> None:
        if self._crowded:
            self._refuse()
        else:
            super().send_400_response(msg)  # type: ignore[misc]

    def _unsupported_upgrade_warning(self) -> None:
        """Close after the answer: the parser leaves out the body of a request for another protocol, and would take it for the next request."""
        self._refused = True
        self.cycle.keep_alive = False

    def on_headers_complete(self) -> None:
        self._unparsed = 0
        if len(self.pipeline) >= MAX_PIPELINED:  # the parser goes through a whole read, thousands of requests, at once
            raise ValueError("too many requests were sent before an answer was read")
        super().on_headers_complete()  # type: ignore[misc]

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        super().on_body(body)  # type: ignore[misc]

    def on_message_complete(self) -> None:
        self._unparsed = 0
        super().on_message_complete()  # type: ignore[misc]

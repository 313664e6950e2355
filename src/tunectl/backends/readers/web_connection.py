"""httpcore: connections to fetch web pages, to public addresses only, and for a limited time.

A name is resolved once per connection, and the checked address is the one that is connected to: a name that
resolves to something else a moment later has no effect. TLS and the Host header keep the name.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

from tunectl.artifacts.reject_reasons import RejectReason
from tunectl.core.optional import import_optional

EMBEDDED = tuple(map(IPv6Network, ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")))
"""Addresses that end at the IPv4 address in their last 32 bits: compatible, mapped, translated (SIIT), NAT64 (RFC 6052)."""
GLOBAL_IPV6 = IPv6Network("2000::/3")
"""What IANA gives out as global unicast."""
NOT_PUBLIC: tuple[IPv4Network | IPv6Network, ...] = (
    *map(
        IPv4Network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32")
    ),  # two clouds' metadata, the relay of 6to4
    *map(IPv6Network, ("2002::/16", "3fff::/20")),  # 6to4, which tunnels to any IPv4 address; documentation
)
"""Not of the public internet, though ``ipaddress`` of some Python says so."""


class FetchRefusedError(Exception):
    """Raised for a page that must not, or cannot, be fetched; has the reject reason and a detail."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Deadline:
    """Time limit of one HTTP response, from the first connection to its last byte."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = 0.0
        self._timeouts = import_optional("httpcore", extra="data").TimeoutException
        self.restart()

    def restart(self) -> None:
        """Start the time limit anew, for the next response."""
        self._end = time.monotonic() + self._seconds

    @contextmanager
    def limit(self, timeout: float | None) -> Iterator[float]:
        """Yield the seconds that one operation may take: ``timeout`` (seconds), or the remaining time if that is less.

        Raises  FetchRefusedError ``unreachable`` where the response has no time left.
        """
        remaining = self._end - time.monotonic()
        if remaining <= 0:
            raise self._build_refusal()
        ends_first = timeout is None or remaining < timeout
        try:
            yield remaining if timeout is None else min(remaining, timeout)
        except self._timeouts as error:
            if ends_first:
                raise self._build_refusal() from error
            raise

    def _build_refusal(self) -> FetchRefusedError:
        return FetchRefusedError("unreachable", f"the response was not complete after {self._seconds:g} s")


class DeadlineStream:
    """A network stream of httpcore whose every operation ends at the deadline, so that a slow server cannot hold it open."""

    def __init__(self, stream: Any, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return at most ``max_bytes`` that have arrived; wait at most ``timeout`` seconds."""
        with self._deadline.limit(timeout) as seconds:
            data: bytes = self._stream.read(max_bytes, timeout=seconds)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send ``buffer`` within ``timeout`` seconds."""
        with self._deadline.limit(timeout) as seconds:
            self._stream.write(buffer, timeout=seconds)

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> DeadlineStream:
        """Return a TLS stream on this connection, for the host name of the request; ``timeout`` in seconds."""
        with self._deadline.limit(timeout) as seconds:
            inner = self._stream.start_tls(ssl_context, server_hostname=server_hostname, timeout=seconds)
        return DeadlineStream(inner, self._deadline)

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        """Return the connection's property ``info``, as httpcore's streams do."""
        return self._stream.get_extra_info(info)


class CheckedBackend:
    """A network backend of httpcore that resolves host names itself, and connects to public addresses only."""

    def __init__(self, deadline: Deadline, *, allow_private: bool) -> None:
        self._httpcore = import_optional("httpcore", extra="data")
        self._backend = self._httpcore.SyncBackend()
        self._deadline = deadline
        self._allow_private = allow_private

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> DeadlineStream:
        """Return a connection to the first address of ``host`` that answers within ``timeout`` seconds.

        Raises  FetchRefusedError ``private_address`` where any address of ``host`` is not public.
        """
        failure: Exception | None = None
        for address in self._resolve(host, port):
            try:
                with self._deadline.limit(timeout) as seconds:
                    stream = self._backend.connect_tcp(
                        address, port, timeout=seconds, local_address=local_address, socket_options=socket_options
                    )
            except (self._httpcore.ConnectError, self._httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return DeadlineStream(stream, self._deadline)
        raise failure or self._httpcore.ConnectError(f"{host} has no address")

    def connect_unix_socket(self, path: str, timeout: float | None = None, socket_options: Any = None) -> Any:
        """Raise FetchRefusedError: a web page is never read from a socket of this machine."""
        raise FetchRefusedError("private_address", f"{path} is a socket of this machine")

    def sleep(self, seconds: float) -> None:
        """Wait ``seconds`` before the next try."""
        time.sleep(seconds)

    def _resolve(self, host: str, port: int) -> list[str]:
        try:
            result = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # UnicodeError: a label that is too long
            raise self._httpcore.ConnectError(str(error)) from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in result))
        for address in addresses:
            if not self._allow_private and not is_public(address):
                raise FetchRefusedError(
                    "private_address",
                    f"{host} leads to {address}, which is no public address; fetch.allow_private: true allows it",
                )
        return addresses


class CheckedTransport:
    """An httpx transport that connects to public addresses only, and within the deadline of the response."""

    def __init__(self, httpx: Any, backend: CheckedBackend) -> None:
        self._httpx = httpx
        self._httpcore = core = import_optional("httpcore", extra="data")
        self._errors = (core.TimeoutException, core.NetworkError, core.ProtocolError, core.UnsupportedProtocol)
        self._pool = core.ConnectionPool(ssl_context=httpx.create_ssl_context(), network_backend=backend)
        read = self._read
        self._body = type(
            "Body",
            (httpx.SyncByteStream,),
            {
                "__init__": lambda body, stream: setattr(body, "stream", stream),
                "__iter__": lambda body: read(body.stream),
                "close": lambda body: body.stream.close(),
            },
        )

    def handle_request(self, request: Any) -> Any:
        """Send ``request`` and return the response; its body is read by the caller."""
        url = request.url
        outgoing = self._httpcore.Request(
            method=request.method,
            url=self._httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with self._translate_errors():
            answer = self._pool.handle_request(outgoing)
        return self._httpx.Response(
            answer.status, headers=answer.headers, stream=self._body(answer.stream), extensions=answer.extensions
        )

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def _read(self, stream: Any) -> Iterator[bytes]:
        with self._translate_errors():
            yield from stream

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raise the errors of httpcore as those of httpx, which have the same names."""
        try:
            yield
        except self._errors as error:
            kind = getattr(self._httpx, type(error).__name__, self._httpx.TransportError)
            raise kind(str(error)) from error


def is_public(address: str) -> bool:
    """Return whether ``address`` belongs to the public internet; for an IPv6 address that embeds an IPv4 one, whether that does.

    The lists of ``ipaddress`` differ between versions of Python, so this module lists the ranges that some of them lack.
    """
    result = ip_address(address)
    if isinstance(result, IPv6Address):
        if any(result in network for network in EMBEDDED):
            result = IPv4Address(int(result) & 0xFFFFFFFF)
        elif result not in GLOBAL_IPV6:
            return False
    return result.is_global and not result.is_multicast and not any(result in network for network in NOT_PUBLIC)

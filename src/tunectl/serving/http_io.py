"""One HTTP request over ASGI, and its response: reading with limits, whole replies, streams."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from tunectl.access.api_errors import ApiError
from tunectl.access.guard import SAFE_METHODS, RequestHead
from tunectl.access.guard_middleware import read_head
from tunectl.access.security_headers import ASGI_HEADERS, HSTS
from tunectl.access.sessions import is_https

AsgiScope = MutableMapping[str, Any]
AsgiMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[AsgiMessage]]
Send = Callable[[AsgiMessage], Awaitable[None]]
Header = tuple[bytes, bytes]
JSON, SSE = "application/json", "text/event-stream; charset=utf-8"
LINGER: Final = 2.0
"""Seconds for which a refused client may continue sending; if the connection were closed at once, the answer would be lost."""


class ClientDisconnectedError(Exception):
    """Raised when the client disconnects before it has the whole response."""


class UploadSlots:
    """Limits how many request bodies are received at once; a body that arrives with its head takes no slot."""

    def __init__(self, total: int = 256, each: int = 32) -> None:
        """``total`` slots for all keys together, ``each`` for one key."""
        self._total, self._each = total, each
        self._open: Counter[str] = Counter()

    @contextmanager
    def hold(self, owner: str) -> Iterator[None]:
        """Occupy one slot for ``owner`` while the block runs.

        Raises  ApiError (429) where all slots, or all that one owner may have, are in use.
        """
        if self._open[owner] >= self._each or self._open.total() >= self._total:
            raise ApiError(
                "this server receives too many request bodies at once; try again",
                "rate_limit_error",
                code="uploads",
                wait=1.0,
            )
        self._open[owner] += 1
        try:
            yield
        finally:
            self._open[owner] -= 1
            if not self._open[owner]:
                del self._open[owner]


class RequestContext:
    """One HTTP request of an ASGI server, with the methods that read its body and send its response."""

    def __init__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope.get("query_string", b"")
        self.started = False
        """Whether the response has begun."""
        self.head: RequestHead = read_head(scope)
        """The part that the guard checks."""
        self.https = is_https(scope.get("scheme", "http"), self.head.headers)
        self.extra: list[Header] = [HSTS] if self.https else []
        """Headers of every response, for example of CORS."""
        self._sending = "transfer-encoding" in self.head.headers or self.header("content-length") not in ("", "0")
        self._receive, self._send = receive, send

    def header(self, name: str) -> str:
        """Return the value of header ``name``; empty if it was not sent."""
        return self.head.headers.get(name, "")

    async def body(self, most: int, seconds: float, slots: UploadSlots, owner: str) -> bytes:
        """Return the whole body, of at most ``most`` bytes, received within ``seconds``.

        While it is received it takes one of ``slots`` for ``owner``.
        Raises  ApiError (413, 408, 429) for one that is too large, too slow, or one too many; ClientDisconnectedError when the client has disconnected.
        """
        declared = self.header("content-length")
        if declared.isdigit() and int(declared) > most:
            raise _too_large(declared, most)
        try:
            async with asyncio.timeout(seconds):
                return await self._body(most, slots, owner)
        except TimeoutError as error:
            raise ApiError(f"the body did not arrive within {seconds:g} s; send it again", status=408) from error

    async def _body(self, most: int, slots: UploadSlots, owner: str) -> bytes:
        body, more = await self._part()
        if more:
            with slots.hold(owner):
                parts, size = [body], len(body)
                while more and size <= most:
                    part, more = await self._part()
                    parts.append(part)
                    size += len(part)
            body = b"".join(parts)
        if len(body) > most:
            raise _too_large(f"more than {most}", most)
        self._sending = False
        return body

    async def _part(self) -> tuple[bytes, bool]:
        """Return the next part of the body, and whether there are more."""
        event = await self._receive()
        if event["type"] == "http.disconnect":
            raise ClientDisconnectedError
        return event.get("body", b""), event.get("more_body", False)

    async def wait_disconnect(self) -> None:
        """Wait until the client disconnects; call it after ``body``."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def reply(self, status: int, body: bytes, kind: str = JSON, headers: Iterable[Header] = ()) -> None:
        """Send a whole response with content type ``kind``; ``headers`` replace default ones of the same name."""
        own = dict(headers)
        usual = [pair for pair in ASGI_HEADERS if pair[0] not in own] if own else ASGI_HEADERS
        all_headers = [*usual, *self.extra, *own.items(), (b"content-length", str(len(body)).encode())]
        is_early = self._sending and status >= 400
        await self._begin(status, kind, [*all_headers, (b"connection", b"close")] if is_early else all_headers)
        content = b"" if self.method == "HEAD" else body
        await self._send({"type": "http.response.body", "body": content, "more_body": is_early})
        if is_early:
            await self._read_on()
            await self._send({"type": "http.response.body", "body": b""})

    async def _read_on(self) -> None:
        """Drop what a client still sends."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while (event := await self._receive())["type"] != "http.disconnect" and event.get("more_body"):
                    pass

    async def refuse(self, problem: ApiError) -> None:
        """Send an error response in OpenAI's format."""
        headers: list[Header] = []
        if problem.wait is not None:
            headers.append((b"retry-after", str(max(1, math.ceil(problem.wait))).encode()))
            # OpenAI's clients prefer this header to Retry-After
            headers.append((b"retry-after-ms", str(round(problem.wait * 1000)).encode()))
        if problem.allow:
            headers.append((b"allow", problem.allow.encode()))
        if problem.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
            if self.method in SAFE_METHODS:
                headers.append((b"www-authenticate", b'Basic realm="tunectl"'))
        with suppress(ClientDisconnectedError):
            await self.reply(problem.status, problem.body(), JSON, headers)

    async def stream(self, part: bytes, headers: Iterable[Header] = ()) -> None:
        """Send some bytes of a stream of server-sent events; the first call sends status and headers, too."""
        if not self.started:
            await self._begin(200, SSE, [*ASGI_HEADERS, *self.extra, *headers, (b"x-accel-buffering", b"no")])
        await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def end(self) -> None:
        """Send the end of a stream."""
        await self._send({"type": "http.response.body", "body": b""})

    async def _begin(self, status: int, kind: str, headers: list[Header]) -> None:
        self.started = True
        start = {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", kind.encode()), *headers],
        }
        try:
            await self._send(start)
        except Exception as error:
            if type(error).__name__ != "LocalProtocolError":
                raise
            with suppress(TimeoutError):  # uvicorn has responded to invalid HTTP itself, and closes
                async with asyncio.timeout(LINGER):
                    await self.wait_disconnect()
            raise ClientDisconnectedError from error


def _too_large(size: str, most: int) -> ApiError:
    return ApiError(f"the request body has {size} bytes; this server takes at most {most}: send less text", status=413)

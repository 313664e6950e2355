"""Web server of monitor and retrain controller: Starlette on uvicorn, in a separate thread.

The guard checks a request before its body is read. No client can block the server: heads and bodies are limited in bytes and in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import ip_address
from threading import Thread
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from tunectl.access.api_errors import ApiError
from tunectl.access.guard import ServiceGuard, list_hosts
from tunectl.access.guard_middleware import GuardMiddleware, read_head
from tunectl.access.routes import Credential, ServiceName
from tunectl.access.security_headers import build_page_policy
from tunectl.backends.reports import render
from tunectl.backends.web import bounded_http
from tunectl.core import logging_setup
from tunectl.core.errors import InfrastructureError
from tunectl.core.optional import import_optional

BODY_SECONDS: Final = 30.0
"""Longest time in seconds for a body, however slowly it arrives."""
DROPPED_BYTES: Final = 16 << 20
"""Bytes that are read and dropped of a body that is too long, once it is answered; closing at once would reset the connection before the answer arrives."""
TEXT: Final = "text/plain; charset=utf-8"


class HttpRequest(NamedTuple):
    """HTTP request that has passed authentication and the size limits, with its whole body."""

    method: str
    path: str
    """Path without the query."""
    body: bytes = b""
    client: str = ""
    """Address of the client; a proxy's, where one is in front."""


class HttpResponse(NamedTuple):
    """Body, content type (``kind``), status and extra headers of an HTTP response."""

    content: bytes
    kind: str = "text/html; charset=utf-8"
    status: int = 200
    headers: Mapping[str, str] = MappingProxyType({})
    """Further headers, or others than the usual ones."""


class HttpServer:
    """HTTP server of the monitor and of the retrain controller; answers on one port, in its own threads."""

    def __init__(
        self,
        service: ServiceName,
        address: str,
        port: int,
        answer: Callable[[HttpRequest], HttpResponse],
        *,
        verify: Callable[[str | None, Credential], None],
        unknown: Credential,
        keyless: Callable[[], bool],
        limit_body: Callable[[str], HttpResponse | int] = lambda _path: 0,
    ) -> None:
        """Open the port; 0 takes any.

        Args:
            service: Its name in the table of routes, which is its command and its section, too.
            address: Address to listen on.
            port: Port to listen on.
            answer: Answers a request that the guard has admitted; runs in a thread, and never raises.
            verify: Raises ApiError where a secret is not valid for the credential in the table.
            unknown: Credential for a path that the table does not have.
            keyless: Whether no key is asked for while only this machine can send requests.
            limit_body: Returns the longest body for a path, or at once the answer where no body could change it.

        Raises  InfrastructureError for a port in use.
        """
        host = "127.0.0.1" if address == "localhost" else address
        self.local = ip_address(host).is_loopback
        """Whether only this machine can send requests."""
        self._handle, self._limit_body = answer, limit_body
        self._requests = import_optional("starlette.requests", extra=service)
        self._responses = import_optional("starlette.responses", extra=service)
        hosts = list_hosts(host)
        self._guard = ServiceGuard(service, verify, lambda: hosts if self.local and keyless() else None, unknown)
        try:
            self._socket = bounded_http.listen(host, port)
        except OSError as error:
            raise InfrastructureError(
                f"{service}.port = {port}: {host}:{port} cannot be used: {error.strerror}",
                hint=f"close the program that uses it, or choose another port: tunectl {service} {service}.port={min(port + 1, 65535)}",
            ) from error
        self._port = int(self._socket.getsockname()[1])
        self._server = bounded_http.build_server(
            GuardMiddleware(self._respond, self._guard, build_page_policy(render.hash_style()))
        )
        self._thread = Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, name="http", daemon=True)

    @property
    def port(self) -> int:
        """Port on which the server listens."""
        return self._port

    def open(self) -> None:
        """Start the thread that answers requests; requests that came since the port was opened wait until then."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering requests, wait up to ten seconds for the thread, and close the port."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        self._socket.close()

    async def _respond(self, scope: Any, receive: Any, send: Any) -> None:
        request = self._requests.Request(scope, receive)
        limit = self._limit_body(scope["path"])
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = None if isinstance(limit, HttpResponse) else await self._read_body(request, limit)
        except TimeoutError:
            reply = HttpResponse(f"the body did not arrive within {BODY_SECONDS:g} s\n".encode(), TEXT, 408)
        except self._requests.ClientDisconnect:  # an incomplete body is not handled
            return
        else:
            reply = limit if isinstance(limit, HttpResponse) else await self._find_reply(request, body, limit)
        closing = {"Connection": "close"} if reply.status in (408, 413) else {}
        headers = {**reply.headers, **closing, "Content-Type": reply.kind}
        response = self._responses.Response(reply.content, reply.status, headers)
        if reply.status != 413:
            await response(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 413, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        await _drop_rest(receive)
        await send({"type": "http.response.body", "body": b""})

    async def _find_reply(self, request: Any, body: bytes | None, limit: int) -> HttpResponse:
        if body is None:
            return HttpResponse(f"at most {limit} bytes are read\n".encode(), TEXT, 413)
        try:
            if body:
                self._guard.admit(read_head(request.scope))  # its key may have been revoked while it arrived
        except ApiError as problem:
            return HttpResponse(f"{problem}\n".encode(), TEXT, problem.status)
        client = request.client.host if request.client else ""
        output = HttpRequest(request.method, request.scope["path"], body, client)
        try:
            return await asyncio.to_thread(self._handle, output)
        except Exception:  # noqa: BLE001  it must not raise, so this is a bug, and the client waits for a response
            logging_setup.get_logger(__name__).exception("a request failed")
            return HttpResponse(b"this failed; the log says why\n", TEXT, 500)

    @staticmethod
    async def _read_body(request: Any, limit: int) -> bytes | None:
        """Return the body; None for one that is too long."""
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > limit:
            return None
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                return None
        return body


async def _drop_rest(receive: Any) -> None:
    """Read and drop the rest of the body."""
    size = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(BODY_SECONDS):
            while size < DROPPED_BYTES:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return
                size += len(message["body"])

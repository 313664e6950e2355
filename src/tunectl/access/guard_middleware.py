"""ASGI middleware for services with pages: refuses a request before the application sees it, and adds the security headers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from tunectl.access.api_errors import ApiError
from tunectl.access.guard import SAFE_METHODS, RequestHead
from tunectl.access.security_headers import APP_POLICY, ASGI_HEADERS, HSTS
from tunectl.access.sessions import is_https

AsgiEvent = MutableMapping[str, Any]
AsgiReceive = Callable[[], Awaitable[AsgiEvent]]
AsgiSend = Callable[[AsgiEvent], Awaitable[None]]
AsgiApplication = Callable[[AsgiEvent, AsgiReceive, AsgiSend], Awaitable[None]]


class RequestGuard(Protocol):
    """Protocol of the checks of a request before the application gets it: host, origin, credential."""

    @property
    def challenge(self) -> str:
        """Realm for which a browser asks for a password (HTTP Basic) where the request is refused; empty for no such prompt."""

    def admit(self, head: RequestHead) -> object:
        """Check a request; the returned value is not used.

        Raises  ApiError where it may not be answered.
        """


def read_head(scope: AsgiEvent) -> RequestHead:
    """Return method, path and headers of an ASGI request."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    return RequestHead(scope["method"], scope["path"], headers)


class GuardMiddleware:
    """ASGI middleware: refuses requests that the guard does not admit, and adds the security headers."""

    def __init__(self, application: AsgiApplication, guard: RequestGuard, policy: str = APP_POLICY) -> None:
        """``policy``: Content-Security-Policy of responses for which ``application`` sets none."""
        self.application, self._guard = application, guard
        self._headers = [*ASGI_HEADERS, (b"content-security-policy", policy.encode())]

    async def __call__(self, scope: AsgiEvent, receive: AsgiReceive, send: AsgiSend) -> None:
        """Answer one request, or refuse it in a line of text."""
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        head = read_head(scope)

        async def send_guarded(event: AsgiEvent) -> None:
            if event["type"] == "http.response.start":
                more = [HSTS] if is_https(scope.get("scheme", "http"), head.headers) else []
                event = {**event, "headers": [*self._add_headers(event.get("headers", [])), *more]}
            await send(event)

        try:
            self._guard.admit(head)
        except ApiError as problem:
            body = f"{problem}\n".encode()
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
            if problem.allow:
                headers.append((b"allow", problem.allow.encode()))
            if problem.status == 401 and scope["method"] in SAFE_METHODS and self._guard.challenge:
                headers.append((b"www-authenticate", f'Basic realm="{self._guard.challenge}"'.encode()))
            await send_guarded({"type": "http.response.start", "status": problem.status, "headers": headers})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
            return
        await self.application(scope, receive, send_guarded)

    def _add_headers(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Add the security headers; a header that the application has set is kept."""
        names = {name.lower() for name, _ in headers}
        return [*headers, *((name, value) for name, value in dict(self._headers).items() if name not in names)]

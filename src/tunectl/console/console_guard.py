"""Checks of every request of the console: its host name, the page that sent it, and who is signed in.

The table of screens gives the scope of a screen; acts have their own. Nothing is open without a session: other accounts,
containers and web pages can reach this machine's own address, too.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final
from urllib.parse import parse_qsl, quote

from tunectl.access import guard, sessions
from tunectl.access.api_errors import ApiError
from tunectl.access.guard import RequestHead
from tunectl.console.console_sessions import SignIn, Visitor

COOKIE: Final = "tunectl_console"
FORM_TYPE: Final = "application/x-www-form-urlencoded"
MAX_FORM_BYTES: Final = 65_536


class ConsoleGuard:
    """Checks each request of the console: host name, origin, session and scopes."""

    def __init__(self, hosts: Collection[str], sign_in: SignIn, *, acts: bool) -> None:
        """``hosts``: host names of the console; ``acts`` False: nothing can be changed from the page."""
        self._hosts, self._sign_in, self.acts = frozenset(hosts), sign_in, acts

    challenge: Final = ""

    def admit(self, head: RequestHead) -> None:
        """Check host name, origin and content type of a request; refuse one to a foreign host name or from a foreign page.

        Raises  ApiError: 421, 403, 415.
        """
        host = head.headers.get("host", "")
        if guard.strip_port(host) not in self._hosts:
            names = ", ".join(sorted(self._hosts))
            raise ApiError(
                f"this console answers to {names}, not to {host[:200] or 'no name'}; add a name to console.hosts",
                code="host",
                status=421,
            )
        if head.method in guard.SAFE_METHODS:
            return
        guard.check_origin(head, strict=True)
        kind = head.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != FORM_TYPE:
            raise ApiError(
                f"Content-Type is {kind[:80]!r}: a form must be sent as {FORM_TYPE}", code="content_type", status=415
            )

    def identify(self, request: Any) -> Visitor | None:
        """Return the visitor of the request's session cookie; None without a valid session."""
        cookie = sessions.read_cookie(request.cookies, self.cookie_name(request), https=self.is_https(request))
        return self._sign_in.find(cookie)

    def require(self, visitor: Visitor, scope: str, *, act: bool = False) -> None:
        """Check that a visitor has a scope; ``act``: for a change, refused with ``console.acts=false``.

        Raises  ApiError (403).
        """
        if act and not self.acts:
            raise ApiError(
                "this console is read-only (console.acts=false); start it with console.acts=true to change anything",
                "permission_error",
                code="acts",
            )
        if scope not in visitor.scopes:
            raise ApiError(
                f"{visitor.name} has the scopes {', '.join(sorted(visitor.scopes))}; this needs {scope}: sign in with a key that has it",
                "permission_error",
                code="scope",
            )

    def is_https(self, request: Any) -> bool:
        """Return whether the browser reached the console over HTTPS."""
        return sessions.is_https(str(request.url.scheme), request.headers)

    def cookie_name(self, request: Any) -> str:
        """Return the name of the session cookie; it contains the port, since browsers share cookies between ports."""
        return f"{COOKIE}_{request.url.port or 'default'}"


async def read_form(request: Any) -> dict[str, str]:
    """Return the fields of a POST request's form, each with its last value.

    Raises  ApiError (413) for one that is too long.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise ApiError(
                f"this form has more than {MAX_FORM_BYTES} bytes, which is the limit; shorten it",
                code="body",
                status=413,
            )
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


def sign_in_address(path: str, query: str) -> str:
    """Return the address of the sign-in page, which leads back to ``path`` and ``query``."""
    target = path + (f"?{query}" if query else "")
    return "/enter" if target == "/" else f"/enter?next={quote(target, safe='')}"


def check_target(target: str) -> str:
    """Return ``target`` if it is a path of this console, else ``/``; it comes from a form."""
    own = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if own and len(target) <= 2000 and not target.startswith("/enter") else "/"

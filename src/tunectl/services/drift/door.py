"""The monitor's web door: metrics for Prometheus, pages for people. Standard library only; reading, never changing.

    /healthz         open to all
    /metrics         scope scrape
    /                windows, newest first (scope admin)
    /windows/ID      one window: signals, what moved, exemplars
    /windows.json    the same for programs
    /reports         Evidently's reports; /reports/ID.html

On a loopback address without a file of keys everything is open; on any other address a key is always asked for. Browsers give it
as the password of any name.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import Thread
from typing import Final, NamedTuple

from tunectl.core import log
from tunectl.core.errors import EnvironmentFailure, TunectlError
from tunectl.serving.keys import Ring, Scope
from tunectl.serving.wire import Problem

_ID = re.compile(r"^[0-9a-f]{16}$")
LOOK_SECONDS: Final = 1.0
"""Between looks at the file of keys."""


class Page(NamedTuple):
    """What is answered."""

    content: bytes
    kind: str = "text/html; charset=utf-8"
    status: int = 200


class Pages(NamedTuple):
    """Where the answers come from."""

    metrics: Callable[[], bytes]
    listing: Callable[[], str]
    window: Callable[[str], str | None]
    """None for an id that is not known."""
    data: Callable[[], bytes]
    reports: Path


class Door:
    """The web server of a monitor, in threads of its own."""

    def __init__(self, address: str, port: int, keys: Path, pages: Pages) -> None:
        """Open the port; 0 takes any.

        Raises  EnvironmentFailure for a port in use; DataError for a broken file of keys.
        """
        self._pages = pages
        host = "127.0.0.1" if address == "localhost" else address
        self._local, self._keys = ip_address(host).is_loopback, keys
        self._ring = Ring(keys, LOOK_SECONDS)
        if not self._public:
            self._ring.open()
        door = self

        class Handler(BaseHTTPRequestHandler):
            """One request."""

            protocol_version = "HTTP/1.1"
            timeout = 30

            def do_GET(self) -> None:
                """Answer."""
                page = door.answer(self.path, self.headers.get("Authorization"))
                self.send_response(page.status)
                self.send_header("Content-Type", page.kind)
                self.send_header("Content-Length", str(len(page.content)))
                self.send_header("X-Content-Type-Options", "nosniff")
                self.send_header("Cache-Control", "no-store")
                if page.status == 401:
                    self.send_header("WWW-Authenticate", 'Basic realm="tunectl monitor"')
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(page.content)

            do_HEAD = do_GET  # noqa: N815  the library's name

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
                """Say nothing: what people make up does not belong in logs."""

        class Server(ThreadingHTTPServer):
            """Threads that die with the process."""

            daemon_threads = True

        try:
            self._server = Server((host, port), Handler)
        except OSError as error:
            raise EnvironmentFailure(
                f"monitor.port = {port}: {host}:{port} cannot be used: {error.strerror}",
                hint=f"close that program, or choose another port: tunectl monitor monitor.port={min(port + 1, 65535)}",
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

    def answer(self, target: str, authorization: str | None) -> Page:
        """The page at a path, for whoever brings that header."""
        path = target.partition("?")[0]
        try:
            if path in {"/healthz", "/livez"}:
                return Page(b"ok\n", "text/plain")
            self._let_in(authorization, "scrape" if path == "/metrics" else "admin")
            return self._page(path)
        except Problem as problem:
            return Page(f"{problem}\n".encode(), "text/plain; charset=utf-8", problem.status)
        except (TunectlError, OSError) as error:
            log.get(__name__).error("%s", error)
            return Page(b"the monitor cannot say that now; its log says why\n", "text/plain", 503)

    @property
    def _public(self) -> bool:
        """Whether nobody needs a key."""
        return self._local and not self._keys.is_file()

    def _let_in(self, authorization: str | None, scope: Scope) -> None:
        if self._public:
            return
        self._ring.key(_secret(authorization), scope, time.monotonic())

    def _page(self, path: str) -> Page:
        if path == "/metrics":
            return Page(self._pages.metrics(), "text/plain; version=0.0.4; charset=utf-8")
        if path in {"/", "/reports", "/reports/"}:
            return Page(self._pages.listing().encode())
        if path == "/windows.json":
            return Page(self._pages.data(), "application/json")
        _, kind, name = [*path.split("/", 2), "", ""][:3]
        if kind == "windows" and _ID.match(name):
            text = self._pages.window(name)
            if text is not None:
                return Page(text.encode())
        if kind == "reports" and _ID.match(name.removesuffix(".html")):
            report = self._pages.reports / f"{name.removesuffix('.html')}.html"
            if report.is_file():
                return Page(report.read_bytes())
        return Page(b"there is nothing here\n", "text/plain", 404)


def _secret(header: str | None) -> str | None:
    """The key of an Authorization header: of a bearer, or as the password that a browser sends."""
    kind, _, value = (header or "").partition(" ")
    if kind.casefold() == "bearer":
        return value.strip()
    if kind.casefold() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None

"""The monitor's web door: metrics for Prometheus, pages for people; reading, never changing.

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

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from tunectl.access.api_errors import ApiError
from tunectl.access.api_keys import KeyScope, KeyStore
from tunectl.artifacts import names
from tunectl.backends.web import http_server
from tunectl.backends.web.http_server import HttpRequest, HttpResponse, HttpServer
from tunectl.core import logging_setup
from tunectl.core.errors import TunectlError

LOOK_SECONDS: Final = 1.0
"""Between looks at the file of keys."""
TEXT: Final = "text/plain; charset=utf-8"


class PageProviders(NamedTuple):
    """Where the answers come from."""

    metrics: Callable[[], bytes]
    listing: Callable[[], str]
    window: Callable[[str], str | None]
    """None for an id that is not known."""
    data: Callable[[], bytes]
    reports: Path


class MonitorApi(HttpServer):
    """See the module's text."""

    def __init__(self, address: str, port: int, keys: Path, pages: PageProviders) -> None:
        """Open the port; 0 takes any.

        Raises  InfrastructureError for a port in use; DataError for a broken file of keys.
        """
        self._pages, self._keys = pages, keys
        self._ring = KeyStore(keys, LOOK_SECONDS)
        super().__init__("monitor", address, port, self.answer)
        if not self._public:
            self._ring.load()

    def answer(self, asked: HttpRequest) -> HttpResponse:
        """The answer to one request; never raises."""
        try:
            if asked.method == "POST":
                return HttpResponse(b"everything here is read\n", TEXT, 405)
            if asked.path in {"/healthz", "/livez"}:
                return HttpResponse(b"ok\n", TEXT)
            self._let_in(asked.authorization, "scrape" if asked.path == "/metrics" else "admin")
            return self._page(asked.path)
        except ApiError as problem:
            return HttpResponse(f"{problem}\n".encode(), TEXT, problem.status)
        except (TunectlError, OSError) as error:
            logging_setup.get_logger(__name__).error("%s", error)
            return HttpResponse(b"the monitor cannot say that now; its log says why\n", TEXT, 503)

    @property
    def _public(self) -> bool:
        """Whether nobody needs a key."""
        return self.local and not self._keys.is_file()

    def _let_in(self, authorization: str | None, scope: KeyScope) -> None:
        if not self._public:
            self._ring.key(http_server.parse_authorization(authorization), scope, time.monotonic())

    def _page(self, path: str) -> HttpResponse:
        if path == "/metrics":
            return HttpResponse(self._pages.metrics(), "text/plain; version=0.0.4; charset=utf-8")
        if path in {"/", "/reports", "/reports/"}:
            return HttpResponse(self._pages.listing().encode())
        if path == "/windows.json":
            return HttpResponse(self._pages.data(), "application/json")
        _, kind, name = [*path.split("/", 2), "", ""][:3]
        if kind == "windows" and names.is_content_id(name):
            text = self._pages.window(name)
            if text is not None:
                return HttpResponse(text.encode())
        if kind == "reports" and names.is_content_id(name.removesuffix(".html")):
            report = self._pages.reports / f"{name.removesuffix('.html')}.html"
            if report.is_file():
                return HttpResponse(report.read_bytes())
        return HttpResponse(b"there is nothing here\n", TEXT, 404)

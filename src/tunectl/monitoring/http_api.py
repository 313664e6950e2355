"""The monitor's HTTP API: metrics for Prometheus, pages for people; reading, never changing.

    /healthz         open to all
    /metrics         scope scrape
    /                windows, newest first (scope look)
    /windows/ID      one window: signals, what moved, exemplars
    /windows.json    the same for programs
    /reports         Evidently's reports; /reports/ID.html

On a loopback address without a keys file everything is open to this machine: to requests for its own host names that came through no
proxy. On any other address a key is always needed. Browsers send it as the password, with any name.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, cast

import msgspec

from tunectl.access.api_keys import KeyStore
from tunectl.access.routes import Credential
from tunectl.access.scopes import KeyScope
from tunectl.access.security_headers import SANDBOX_POLICY
from tunectl.artifacts import names
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import DriftWindow
from tunectl.backends.web.http_server import TEXT, HttpRequest, HttpResponse, HttpServer
from tunectl.config.schema.monitor import MonitorSettings
from tunectl.core import logging_setup
from tunectl.core.errors import TunectlError
from tunectl.monitoring import drift_page, reference_data, report_files
from tunectl.monitoring.drift_monitor import DriftMonitor
from tunectl.monitoring.monitor_metrics import DriftMetrics

LOOK_SECONDS: Final = 1.0
"""Seconds between checks of the keys file."""


class PageProviders(NamedTuple):
    """Functions that return the content of each page, and the folder of Evidently's reports."""

    metrics: Callable[[], bytes]
    listing: Callable[[], str]
    window: Callable[[str], str | None]
    """None for an unknown id."""
    data: Callable[[], bytes]
    reports: Path


def build_pages(
    settings: MonitorSettings, layout: ProjectPaths, monitor: DriftMonitor, metrics: DriftMetrics
) -> PageProviders:
    """Return functions that render metrics, windows and reports; windows are read anew each time: an erasure clears words of stored ones."""
    folder = layout.root / settings.monitor.reports

    def list_windows() -> list[DriftWindow]:
        return reference_data.list_closed_windows(monitor.store)

    def list_report_names() -> set[str]:
        return {one.name for one in report_files.list_reports(folder)}

    def window(name: str) -> str | None:
        match = next((one for one in list_windows() if one.id == name), None)
        if match is None:
            return None
        return drift_page.render_window(
            settings.project, match, reference_data.load_rows_by_id(monitor.store, name), list_report_names()
        )

    return PageProviders(
        metrics=metrics.render,
        listing=lambda: drift_page.render_index(settings.project, list_windows(), list_report_names()),
        window=window,
        data=lambda: msgspec.json.encode(list_windows()),
        reports=folder,
    )


class MonitorApi(HttpServer):
    """HTTP server of the monitor: metrics for Prometheus, windows for people; it changes nothing."""

    def __init__(self, address: str, port: int, keys: Path, pages: PageProviders) -> None:
        """Open the port (0: any free one); ``keys`` is the file of API keys; where it is absent only loopback is served, without a key.

        Raises  InfrastructureError for a port in use; DataError for a broken file of keys.
        """
        self._pages = pages
        self._ring = KeyStore(keys, LOOK_SECONDS)
        super().__init__(
            "monitor",
            address,
            port,
            self.answer,
            verify=self._verify,
            unknown="look",
            keyless=lambda: not keys.is_file(),
        )
        if not self.local or keys.is_file():
            self._ring.load()

    def answer(self, request: HttpRequest) -> HttpResponse:
        """Return the response to one request; errors become responses, too."""
        try:
            alive = request.path in {"/healthz", "/livez"}
            return HttpResponse(b"ok\n", TEXT) if alive else self._page(request.path)
        except (TunectlError, OSError) as error:
            logging_setup.get_logger(__name__).error("%s", error)
            return HttpResponse(
                b"the monitor cannot read this now; its log has the error; try again later\n", TEXT, 503
            )

    def _verify(self, secret: str | None, opened_by: Credential) -> None:
        self._ring.key(secret, cast("KeyScope", opened_by), time.monotonic())

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
                return HttpResponse(report.read_bytes(), headers={"Content-Security-Policy": SANDBOX_POLICY})
        return HttpResponse(b"there is nothing here\n", TEXT, 404)

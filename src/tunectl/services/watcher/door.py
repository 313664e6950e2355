"""The watcher's web door. Standard library only, a thread a request.

    /healthz          open to all
    /webhook          POST: Alertmanager (payload 4) and Grafana (payload 1), with the bearer token
    /metrics          with the token; open on a loopback address
    /  /runs/ID       the stories; with the token (as a password), open on a loopback address
    /decide/TOKEN     GET shows, POST decides: the signed link is the key

Answers to a webhook are a contract with Alertmanager, which tries again after 5xx and network errors only: 200 for what is kept
or known, 503 for what cannot be taken now, 4xx for what will never be right.
"""

from __future__ import annotations

import base64
import hmac
import json
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from threading import Thread
from typing import Final, NamedTuple
from urllib.parse import parse_qs, unquote

from tunectl.core import log
from tunectl.core.errors import DataError, EnvironmentFailure, TunectlError, UsageError
from tunectl.release import alerts
from tunectl.release.book import Book
from tunectl.services.watcher.pages import Pages

BUSY: Final = frozenset(("proposed", "data_gate", "training", "evaluating"))
"""States in which nothing new is taken; a run that waits for people, traffic or its turn does so for days: triggers are kept then."""
FORM: Final = 10_000
"""Bytes of the form of a decision."""
SECONDS: Final = 30
"""Longest silence of somebody who asks."""
DIGITS: Final = 12
"""Longest Content-Length that is a number to us."""
HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Reply(NamedTuple):
    """What is answered."""

    status: int
    content: bytes
    kind: str = "application/json"
    again: int | None = None
    """Seconds, for Retry-After."""


def said(code: int, /, **words: object) -> Reply:
    """A JSON answer."""
    return Reply(code, json.dumps(words).encode() + b"\n", again=60 if code == 503 else None)


class Door:
    """See the module's text."""

    def __init__(
        self,
        book: Book,
        pages: Pages,
        metrics: Callable[[], bytes],
        *,
        token: str,
        alert_names: tuple[str, ...],
        nudge: Callable[[], None],
        address: str,
        port: int,
    ) -> None:
        """Open the port; 0 takes any. ``nudge`` wakes the driver.

        Raises  EnvironmentFailure for a port in use.
        """
        self._book, self._pages, self._metrics, self._nudge = book, pages, metrics, nudge
        self._token, self._names = token.encode(), alert_names
        host = "127.0.0.1" if address == "localhost" else address
        self._local = ip_address(host).is_loopback
        self._server = _listening(self, host, port)

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

    def answer(self, method: str, target: str, authorization: str | None, body: bytes) -> Reply:
        """The answer to one request; never raises."""
        path = target.partition("?")[0]
        try:
            return self._answer(method, path, authorization, body)
        except UsageError as error:
            return Reply(410, f"{error.message}\n{error.hint}\n".encode(), "text/plain; charset=utf-8")
        except (TunectlError, OSError) as error:
            log.get(__name__).error("%s %s: %s", method, path.partition("/decide/")[0] or "/decide", error)
            return said(503, status="error", error="this cannot be kept now; the log says why")

    def _answer(self, method: str, path: str, authorization: str | None, body: bytes) -> Reply:
        if path in {"/healthz", "/livez"}:
            return Reply(200, b"ok\n", "text/plain")
        if path.startswith("/decide/"):
            return self._decide(method, unquote(path.removeprefix("/decide/")), body)
        if (path == "/webhook" or not self._local) and not self._known(authorization):
            return said(401, status="error", error="the bearer token is missing or wrong")
        if (method == "POST") != (path == "/webhook"):
            return said(405, status="error", error="alerts are POSTed to /webhook, everything else is read")
        return self._webhook(body) if method == "POST" else self._read(path)

    def _read(self, path: str) -> Reply:
        if path == "/metrics":
            return Reply(200, self._metrics(), "text/plain; version=0.0.4; charset=utf-8")
        if path == "/":
            return _page(self._pages.index())
        if path.startswith("/runs/"):
            found = self._pages.run(path.removeprefix("/runs/"))
            if found is not None:
                return _page(found)
        return said(404, status="error", error="there is nothing here")

    def _webhook(self, body: bytes) -> Reply:
        """Keep what is new, durably, before saying so."""
        try:
            found = alerts.parse(body, self._names, datetime.now(UTC))
        except DataError as error:
            return said(413 if len(body) > alerts.LARGEST else 400, status="error", error=error.message)
        fresh = [one for one in found.triggers if self._book.seen(one.id) is None and not self._book.waits(one.id)]
        active = next((run for run in reversed(self._book.runs()) if not run.ended), None) if fresh else None
        if active is not None and active.state in BUSY:
            return said(503, status="busy", error=f"retrain {active.id} is {active.state}")
        kept = sum(self._book.receive(one) for one in fresh)
        if kept:
            self._nudge()
        return said(200, status="kept" if kept else "known" if found.triggers else "nothing", new=kept)

    def _decide(self, method: str, token: str, body: bytes) -> Reply:
        if method in {"GET", "HEAD"}:
            return _page(self._pages.decide(token, datetime.now(UTC)))
        if len(body) > FORM:
            return said(413, status="error", error="that form is too long")
        form = {name: values[0] for name, values in parse_qs(body.decode(errors="replace")).items()}
        page = self._pages.decide(token, datetime.now(UTC), form)
        self._nudge()
        return _page(page)

    def _known(self, header: str | None) -> bool:
        kind, _, value = (header or "").partition(" ")
        given = value.strip().encode()
        if kind.casefold() == "basic":
            try:
                given = base64.b64decode(value, validate=True).partition(b":")[2]
            except ValueError:  # no base64, or not even ASCII
                return False
        elif kind.casefold() != "bearer":
            return False
        return hmac.compare_digest(given, self._token)


def _page(text: str) -> Reply:
    return Reply(200, text.encode(), "text/html; charset=utf-8")


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    timeout = SECONDS
    door: Door

    def _any(self) -> None:
        length = self.headers.get("Content-Length", "0")
        size = int(length) if length.isascii() and length.isdigit() and len(length) <= DIGITS else -1
        if size < 0 or self.headers.get("Transfer-Encoding"):
            self._send(said(411, status="error", error="Content-Length is needed"), close=True)
        elif size > alerts.LARGEST:
            self._send(said(413, status="error", error=f"at most {alerts.LARGEST} bytes are read"), close=True)
            self._linger(size)
        else:
            body = self.rfile.read(size)
            if len(body) < size:  # whoever sent it has left: half of it is nobody's word
                self.close_connection = True
                return
            self._send(self.door.answer(self.command, self.path, self.headers.get("Authorization"), body))

    def _linger(self, size: int) -> None:
        """Read on for a moment after a refusal: closing while somebody still sends would take the answer from them."""
        self.wfile.flush()
        self.connection.settimeout(2)
        with suppress(OSError):
            while size > 0 and (chunk := self.connection.recv(65_536)):
                size -= len(chunk)

    do_GET = do_HEAD = do_POST = _any  # noqa: N815  the library's names

    def _send(self, reply: Reply, *, close: bool = False) -> None:
        self.send_response(reply.status)
        told = {**HEADERS, "Content-Type": reply.kind, "Content-Length": str(len(reply.content))}
        if reply.again is not None:
            told["Retry-After"] = str(reply.again)
        if reply.status == 401:
            told["WWW-Authenticate"] = 'Basic realm="tunectl watch"'
        if close:
            told["Connection"] = "close"
            self.close_connection = True
        for name, value in told.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
        """Say nothing: what people make up does not belong in logs."""


class _Server(ThreadingHTTPServer):
    """Threads that die with the process."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, handler: Callable[..., BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Nobody waits any more where the line is dead; anything else is our bug."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            log.get(__name__).error("a request failed", exc_info=error)


def _listening(door: Door, host: str, port: int) -> ThreadingHTTPServer:
    handler = type("Handler", (_Handler,), {"door": door})
    try:
        return _Server(host, port, handler)
    except OSError as error:
        raise EnvironmentFailure(
            f"watch.port = {port}: {host}:{port} cannot be used: {error.strerror}",
            hint=f"close that program, or choose another port: tunectl watch watch.port={min(port + 1, 65535)}",
        ) from error

"""The HTTP endpoints of the retrain controller.

    /healthz          open to all
    /webhook          POST: Alertmanager (payload 4) and Grafana (payload 1); scope operate
    /metrics          scope scrape; open to this machine on a loopback address
    /  /runs/ID       the retrain reports; scope look (the key is the password), open to this machine on a loopback address
    /decide/TOKEN     GET shows the question of a signed link, POST decides: with a key of scope decide, which somebody types

The token of retrain.token_file is also accepted for /webhook and /metrics: programs that send alerts read it from that file.
Answers to a webhook are a contract with Alertmanager, which retries after 5xx and network errors only: 200 for what is stored
or known, and for an alert that is merged into those that are pending, 503 for what cannot be stored now, 4xx for invalid requests.
"""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple, cast
from urllib.parse import parse_qs, unquote

from tunectl.access.api_errors import ApiError
from tunectl.access.api_keys import KeyStore
from tunectl.access.routes import TOKEN_SCOPES, Credential
from tunectl.access.scopes import KeyScope
from tunectl.access.throttle import KeyThrottle
from tunectl.backends.web.http_server import HttpRequest, HttpResponse, HttpServer
from tunectl.core import logging_setup
from tunectl.core.errors import DataError, TunectlError, UsageError
from tunectl.retraining import alert_webhook
from tunectl.retraining.approval_pages import ApprovalPages
from tunectl.retraining.approvals import Approvers
from tunectl.retraining.run_store import ApprovalDecision, RunStore, TriggerPendingError

BUSY: Final = frozenset(("proposed", "data_gate", "training", "evaluating"))
"""States in which a trigger is refused as busy; in others, where a run may wait for people or traffic for days, triggers are stored."""
FORM: Final = 10_000
"""Most bytes of the form of a decision."""


def json_reply(code: int, /, **body: object) -> HttpResponse:
    """Return a response with HTTP status ``code`` and ``body`` as its JSON body; 503 asks for a retry after 60 seconds."""
    headers = {"Retry-After": "60"} if code == 503 else {}
    return HttpResponse(json.dumps(body).encode() + b"\n", "application/json", code, headers)


def _refuse_link(error: UsageError) -> HttpResponse:
    return HttpResponse(f"{error.message}\n{error.hint}\n".encode(), "text/plain; charset=utf-8", 410)


class RetrainSecrets(NamedTuple):
    """The webhook token and the keys that ``RetrainApi`` accepts."""

    token: str
    """Token of retrain.token_file, for programs."""
    keys: KeyStore
    people: tuple[str, ...] | None
    """Names of keys that may decide; None: every key of scope decide."""

    def verify(self, secret: str | None, opened_by: Credential) -> None:
        """Raise where ``secret`` is not valid for ``opened_by``, the kind of credential that a route needs.

        Raises  ApiError (401, 403).
        """
        if opened_by in TOKEN_SCOPES and hmac.compare_digest((secret or "").encode(), self.token.encode()):
            return
        self.keys.key(secret, cast("KeyScope", opened_by), time.monotonic())


class RetrainApi(HttpServer):
    """HTTP server that receives alerts and decisions, and shows runs and metrics; it does not call the controller."""

    def __init__(
        self,
        store: RunStore,
        pages: ApprovalPages,
        metrics: Callable[[], bytes],
        *,
        secrets: RetrainSecrets,
        alert_names: tuple[str, ...],
        nudge: Callable[[], None],
        address: str,
        port: int,
    ) -> None:
        """Open the port; 0 takes any. ``nudge`` wakes the controller.

        Raises  InfrastructureError for a port in use; DataError for a broken file of keys.
        """
        self._store, self._pages, self._metrics, self._nudge = store, pages, metrics, nudge
        self._names, self._throttle = alert_names, KeyThrottle()
        self._approvers = Approvers(secrets.keys, secrets.people)
        if secrets.keys.path.is_file():
            secrets.keys.load()
        super().__init__(
            "retrain",
            address,
            port,
            self.answer,
            verify=secrets.verify,
            unknown="look",
            keyless=lambda: True,
            limit_body=self._limit_body,
        )

    def _limit_body(self, path: str) -> HttpResponse | int:
        """Return the longest body for a path; the answer for a link that is not valid, to which anybody may send."""
        token = path.removeprefix("/decide/")
        if token == path:
            return alert_webhook.LARGEST if path == "/webhook" else 0
        try:
            self._pages.check_link(unquote(token), datetime.now(UTC))
        except UsageError as error:
            return _refuse_link(error)
        return FORM

    def answer(self, request: HttpRequest) -> HttpResponse:
        """Return the response to one request; errors become responses, too."""
        try:
            return self._answer(request)
        except UsageError as error:
            return _refuse_link(error)
        except (TunectlError, OSError) as error:
            logging_setup.get_logger(__name__).error(
                "%s %s: %s", request.method, request.path.partition("/decide/")[0] or "/decide", error
            )
            return json_reply(
                503, status="error", error="the retrain controller cannot store this now; its log has the error"
            )

    def _answer(self, request: HttpRequest) -> HttpResponse:
        method, path = request.method, request.path
        if path in {"/healthz", "/livez"}:
            return HttpResponse(b"ok\n", "text/plain")
        if path.startswith("/decide/"):
            return self._decide(request, unquote(path.removeprefix("/decide/")))
        return self._webhook(request.body) if method == "POST" else self._read(path)

    def _read(self, path: str) -> HttpResponse:
        if path == "/metrics":
            return HttpResponse(self._metrics(), "text/plain; version=0.0.4; charset=utf-8")
        if path == "/":
            return HttpResponse(self._pages.index().encode())
        if path.startswith("/runs/"):
            result = self._pages.run(path.removeprefix("/runs/"))
            if result is not None:
                return HttpResponse(result.encode())
        return json_reply(
            404, status="error", error=f"no page at {path[:100]}; there are /, /runs/ID, /metrics and /healthz"
        )

    def _webhook(self, body: bytes) -> HttpResponse:
        """Store new triggers, durably, before answering; those that find too many pending are merged into them."""
        try:
            triggers = alert_webhook.parse_alertmanager(body, self._names, datetime.now(UTC))
        except DataError as error:
            return json_reply(400, status="error", error="; ".join(filter(None, (error.message, error.hint))))
        new_triggers = [
            item
            for item in triggers
            if self._store.get_outcome(item.id) is None and not self._store.is_pending(item.id)
        ]
        active = next((run for run in reversed(self._store.runs()) if not run.ended), None) if new_triggers else None
        if active is not None and active.state in BUSY:
            return json_reply(
                503, status="busy", error=f"retrain {active.id} is {active.state}; send the alert again later"
            )
        count, merged, reason = 0, 0, {}
        for item in new_triggers:
            try:
                count += self._store.enqueue_trigger(item)
            except TriggerPendingError as error:  # no refusal: Alertmanager would count and log a failed delivery
                merged, reason = merged + 1, {"detail": error.message}
        if count:
            self._nudge()
        status = "kept" if count else "merged" if merged else "known" if triggers else "nothing"
        return json_reply(200, status=status, new=count, merged=merged, **reason)

    def _decide(self, request: HttpRequest, token: str) -> HttpResponse:
        body = request.body
        if request.method in {"GET", "HEAD"}:
            return HttpResponse(self._pages.decide(token, datetime.now(UTC)).encode())
        form = {name: values[0] for name, values in parse_qs(body.decode(errors="replace")).items()}
        now = datetime.now(UTC)
        try:
            author = self._verify_person(request.client, form.get("key", "").strip())
        except ApiError as problem:
            page = self._pages.decide(token, now, trouble=f"Not decided: {problem}.")
            return HttpResponse(page.encode(), status=problem.status)
        if form.get("answer") not in ("yes", "no"):
            raise UsageError(
                f"answer = {form.get('answer', '')[:40]!r}: must be yes or no",
                hint="open the link again, and press one of its buttons",
            )
        page = self._pages.decide(token, now, ApprovalDecision(form["answer"] == "yes", now, author, ""))
        self._nudge()
        return HttpResponse(page.encode())

    def _verify_person(self, address: str, key: str) -> str:
        """Return the name of a key that may decide; wrong keys of one address are counted.

        Raises  ApiError (401, 403, 429).
        """
        self._throttle.check(address)
        try:
            return self._approvers.verify(key)
        except ApiError as problem:
            if problem.status == 401:
                self._throttle.count(address)
            raise

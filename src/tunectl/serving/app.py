"""The server's routes: API keys, limits, handlers, and every error in OpenAI's format."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, cast

import msgspec

from tunectl.access import guard, routes
from tunectl.access.api_errors import ApiError
from tunectl.access.api_keys import ApiKey, KeyStore
from tunectl.access.routes import RouteRule
from tunectl.access.scopes import KeyScope
from tunectl.access.security_headers import build_page_policy
from tunectl.backends.reports import render
from tunectl.config.schema.serve import ServeSettings
from tunectl.core import logging_setup
from tunectl.inference_log.pseudonyms import identify_caller
from tunectl.serving import generation_task, metadata_endpoints, request_job, requests
from tunectl.serving.admission_control import AdmissionController, AdmissionTicket, OverloadedError, estimate_tokens
from tunectl.serving.http_io import AsgiScope, ClientDisconnectedError, Receive, RequestContext, Send, UploadSlots
from tunectl.serving.inference_logger import InferenceLogger
from tunectl.serving.model_manager import ModelManager
from tunectl.serving.requests import ChatRequest, CompletionRequest, FeedbackRequest
from tunectl.serving.routing import resolve_variant
from tunectl.serving.serving_metrics import ServingMetrics
from tunectl.serving.stream_router import TokenStream

Handler = Callable[[RequestContext, ApiKey], Awaitable[None]]
UNREAD: Final = 5.0
"""Seconds after the longest time for a request; a client that has not received its answer by then is disconnected."""
HEALTH: Final = frozenset({"/healthz", "/livez", "/readyz"})


class Route(NamedTuple):
    """Entry of the server's routing table: a rule (path, scope) and its handler."""

    rule: RouteRule
    handler: Handler

    @property
    def scope(self) -> KeyScope | None:
        """Scope that the API key must have; None: any valid key."""
        return None if self.rule.opened_by == "any key" else cast("KeyScope", self.rule.opened_by)


@dataclass
class Server:
    """The ASGI application of one running server, with the components that its handlers use."""

    settings: ServeSettings
    model_manager: ModelManager
    key_store: KeyStore
    admission: AdmissionController
    metrics: ServingMetrics
    request_logger: InferenceLogger
    draining: bool = False
    """Whether it reports "not ready" because it is stopping."""
    refusing: bool = False
    """Whether it takes no new requests because it is stopping: true ``serve.shutdown.pre_stop_seconds`` after ``draining``."""
    mounts: dict[str, Callable[[AsgiScope, Receive, Send], Awaitable[None]]] = field(default_factory=dict)
    """Applications by the first part of their path, for example ``/arena``; each checks its own visitors."""
    uploads: UploadSlots = field(default_factory=UploadSlots)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def __post_init__(self) -> None:
        handlers: dict[str, Handler] = {
            "/v1/chat/completions": self.chat,
            "/v1/completions": self.complete,
            "/v1/models": self.models,
            "/v1/models/{model:path}": self.model,
            "/v1/feedback": self.feedback,
            "/metrics": self.scrape,
            "/openapi.json": self.document,
            "/docs": self.docs,
        }
        rules = {rule.path: rule for rule in routes.ROUTES if rule.service == "server"}
        self.routes: dict[str, Route] = {path: Route(rules[path], handler) for path, handler in handlers.items()}

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        mounted = self.mounts.get("/" + scope["path"][1:].partition("/")[0]) if self.mounts else None
        if mounted is not None:
            await mounted(scope, receive, send)
            return
        call = RequestContext(scope, receive, send)
        try:
            if not await self._cors(call):
                await self._answer(call)
        except ClientDisconnectedError:
            return
        except ApiError as problem:
            await self._refuse(call, problem)
        except Exception:  # noqa: BLE001  # for any error the client gets a response in the documented format
            logging_setup.get_logger(__name__).exception("%s %s failed", call.method, self._sanitize_path(call.path))
            if not call.started:
                await call.refuse(ApiError("this server failed; its log has the error", "server_error"))

    async def _refuse(self, call: RequestContext, problem: ApiError) -> None:
        if isinstance(problem, OverloadedError):
            self.metrics.rejected.labels(problem.reason).inc()
        if not call.started:
            await call.refuse(problem)

    def _sanitize_path(self, path: str) -> str:
        """Return a path for the log: paths that clients make up are replaced."""
        return path if path in self.routes or path in HEALTH else "another path"

    async def _answer(self, call: RequestContext) -> None:
        if call.path in HEALTH:
            await self._health(call)
            return
        named = call.path.startswith("/v1/models/")
        route = self.routes.get("/v1/models/{model:path}" if named else call.path)
        guard.check_origin(call.head, self.settings.serve.cors)
        key = self.key_store.key(guard.read_secret(call.head), route.scope if route else None, time.monotonic())
        if route is None:
            raise ApiError(
                f"no endpoint at {call.path[:200]}; this server has {', '.join(self.routes)}", "not_found_error"
            )
        _refuse_method(call, route.rule.method)
        guard.check_content_type(call.head, route.rule.body)
        wait = self.key_store.consume(key, time.monotonic())
        if wait:
            raise OverloadedError(
                "rate_limit",
                f"the key {key.name} may make {self.key_store.limit_of(key, 'per_minute')} requests a minute; try again in {max(1.0, wait):.0f} s",
                max(1.0, wait),
            )
        if route.rule.method == "GET":
            await route.handler(call, key)
            return
        with self.key_store.hold(key) as free:
            if not free:
                most = self.key_store.limit_of(key, "max_concurrency")
                raise OverloadedError(
                    "rate_limit", f"the key {key.name} may have {most} requests at once; wait for one to end", 1.0
                )
            await route.handler(call, key)

    async def _cors(self, call: RequestContext) -> bool:
        """Add the headers for a declared web origin; return True where the request was only a preflight."""
        origin, declared = call.header("origin"), self.settings.serve.cors
        if not origin or not (origin in declared or "*" in declared):
            return False
        call.extra += [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", b"retry-after, retry-after-ms"),
            (b"vary", b"origin"),
        ]
        if call.method != "OPTIONS" or not call.header("access-control-request-method"):
            return False
        headers = call.header("access-control-request-headers") or "authorization, content-type"
        allowed = [
            (b"access-control-allow-methods", b"GET, POST"),
            # OpenAI's client sends further headers from a browser
            (b"access-control-allow-headers", headers.encode("latin-1")),
            (b"access-control-max-age", b"600"),
        ]
        await call.reply(204, b"", "text/plain", allowed)
        return True

    async def _health(self, call: RequestContext) -> None:
        _refuse_method(call, "GET")
        if call.path != "/readyz":
            await call.reply(200, b'{"status":"alive"}')
            return
        ready = self.model_manager.ready and not self.draining
        body = {
            "ready": ready,
            **({"reason": "the server is stopping"} if self.draining else {}),
            **metadata_endpoints.readiness_body(self.model_manager, locations=self._shows_key(call)),
        }
        await call.reply(200 if ready else 503, msgspec.json.encode(body))

    def _shows_key(self, call: RequestContext) -> bool:
        """Return whether a request to a public route has a valid key."""
        try:
            return self.key_store.key(guard.read_secret(call.head), None, time.monotonic()) is not None
        except ApiError:
            return False

    async def chat(self, call: RequestContext, key: ApiKey) -> None:
        """Handle ``POST /v1/chat/completions``."""
        await self._generate(call, key, ChatRequest)

    async def complete(self, call: RequestContext, key: ApiKey) -> None:
        """Handle ``POST /v1/completions``."""
        await self._generate(call, key, CompletionRequest)

    async def _generate(
        self, call: RequestContext, key: ApiKey, shape: type[ChatRequest] | type[CompletionRequest]
    ) -> None:
        arrived, limits = time.monotonic(), self.settings.serve.limits
        body, key = await self._read_body(call, key)
        request: ChatRequest | CompletionRequest = requests.parse(body, shape, depth=limits.max_json_depth)
        fields = requests.select_known_fields(body, shape)
        requests.check_supported(request)
        self._refuse_unready()
        loaded, names = self.model_manager.loaded, [self.settings.project, *self.settings.serve.served_model_names]
        identity = identify_caller(request.user if key.allows("acts_for") else None, key.name)
        variant = resolve_variant(
            request.model,
            identity,
            {variant: item.id for variant, item in loaded.items()},
            names,
            self.model_manager.canary,
        )
        release = loaded[variant]
        answers = request_job.count_answers(request)
        tokens = estimate_tokens(len(body), request.limit or release.contract.defaults.max_tokens, answers)
        start_event = asyncio.Event()
        name = hashlib.blake2b(body, key=bytes.fromhex(key.sha256), digest_size=16).digest()
        may_be_retry = call.header("x-stainless-retry-count") != "0"  # OpenAI's clients send the number of the try
        ticket = self.admission.admit(
            answers, tokens, time.monotonic(), start_event.set, name=name, may_be_retry=may_be_retry
        )
        token_stream = TokenStream(answers)
        release.claims += 1
        try:
            self._count()
            self._charge(key, tokens)
            share = self.settings.inference_log.logprob_share
            job = await request_job.build_job(
                request, variant, release, arrived, request.model, size=len(body), logprob_share=share
            )
            await self._write(
                call, key, fields, generation_task.GenerationTask(job, self.metrics, token_stream), start_event
            )
        finally:
            release.claims -= 1
            self._leave(ticket, token_stream)

    async def _read_body(self, call: RequestContext, key: ApiKey) -> tuple[bytes, ApiKey]:
        """Return the body of a request, and its key as it is now: it may have been changed or revoked while the body arrived.

        Raises  ApiError (401, 403) where it opens this route no more.
        """
        limits = self.settings.serve.limits
        body = await call.body(limits.max_body_bytes, limits.body_timeout_seconds, self.uploads, key.sha256)
        return body, self.key_store.key(guard.read_secret(call.head), self.routes[call.path].scope, time.monotonic())

    def _charge(self, key: ApiKey, tokens: int) -> None:
        """Count the tokens of an admitted request; refuse a key that has used too many."""
        wait = self.key_store.consume_tokens(key, tokens, time.monotonic())
        if wait:
            most = self.key_store.limit_of(key, "tokens_per_minute")
            raise OverloadedError(
                "rate_limit",
                f"the key {key.name} may use {most} tokens a minute; try again in {max(1.0, wait):.0f} s",
                max(1.0, wait),
            )

    async def _write(
        self,
        call: RequestContext,
        key: ApiKey,
        fields: dict[str, Any],
        generation: generation_task.GenerationTask,
        start_event: asyncio.Event,
    ) -> None:
        """Wait for capacity, then generate; a disconnected client or a timeout ends both."""
        watch = asyncio.create_task(self._watch(call, generation, start_event))
        timer = asyncio.get_running_loop().call_later(
            self.settings.serve.limits.request_timeout_seconds, self._end_late, generation, start_event
        )
        task = asyncio.create_task(self.request_logger.log_request(generation.job, key, fields))
        try:
            async with asyncio.timeout(self.settings.serve.limits.request_timeout_seconds + UNREAD):
                await start_event.wait()
                self.metrics.queued.observe(time.monotonic() - generation.job.arrived)
                if generation.over is None:
                    generation.start()
                await generation_task.respond(call, generation, task, self.request_logger)
        except TimeoutError as error:
            raise ClientDisconnectedError from error
        finally:
            timer.cancel()
            watch.cancel()
            generation.cancel()

    async def _watch(
        self, call: RequestContext, writing: generation_task.GenerationTask, start_event: asyncio.Event
    ) -> None:
        await call.wait_disconnect()
        writing.give_up("cancelled")
        start_event.set()

    def _end_late(self, generation: generation_task.GenerationTask, start_event: asyncio.Event) -> None:
        generation.give_up("timeout")
        start_event.set()

    def _leave(self, ticket: AdmissionTicket, token_stream: TokenStream) -> None:
        """Release the capacity once the engine has released every answer, so that the limit always holds."""
        if ticket.started_at is None or not token_stream.started or not token_stream.open:
            self.admission.leave(ticket, time.monotonic(), generated=token_stream.started)
            self._count()
            return
        task = asyncio.create_task(self._leave_later(ticket, token_stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _leave_later(self, ticket: AdmissionTicket, token_stream: TokenStream) -> None:
        while token_stream.open:
            await token_stream.take()
        self.admission.leave(ticket, time.monotonic())
        self._count()

    def _count(self) -> None:
        self.metrics.running.set(self.admission.running)
        self.metrics.waiting.set(self.admission.waiting)

    def _refuse_unready(self) -> None:
        if self.refusing:
            raise OverloadedError("draining", "this server is stopping; send the request again", 1.0, status=503)
        if not self.model_manager.ready:
            reason = self.model_manager.trouble.get("champion", "the champion is being loaded")
            raise OverloadedError(
                "not_ready", f"this server is not ready, try again later: {reason.splitlines()[0]}", 5.0, status=503
            )

    async def models(self, call: RequestContext, key: ApiKey) -> None:
        """Handle ``GET /v1/models``: all models."""
        await call.reply(
            200,
            msgspec.json.encode(
                {"object": "list", "data": metadata_endpoints.models(self.settings, self.model_manager)}
            ),
        )

    async def model(self, call: RequestContext, key: ApiKey) -> None:
        """Handle ``GET /v1/models/{model}``: one model."""
        name = call.path.removeprefix("/v1/models/")
        for model in metadata_endpoints.models(self.settings, self.model_manager):
            if model["id"] == name:
                await call.reply(200, msgspec.json.encode(model))
                return
        raise ApiError(
            f"model {name[:100]!r} is not served here; GET /v1/models lists those that are",
            "not_found_error",
            param="model",
            code="model_not_found",
        )

    async def feedback(self, call: RequestContext, key: ApiKey) -> None:
        """Handle ``POST /v1/feedback``."""
        body, key = await self._read_body(call, key)
        feedback = requests.parse(body, FeedbackRequest, depth=self.settings.serve.limits.max_json_depth)
        new, name, variant = await self.request_logger.log_feedback(feedback, key)
        if new:
            self.metrics.feedback.labels(feedback.kind, variant).inc()
        await call.reply(201 if new else 200, msgspec.json.encode({"id": name, "new": new}))

    async def scrape(self, call: RequestContext, key: ApiKey) -> None:
        """Handle ``GET /metrics``, for Prometheus."""
        self._count()
        await call.reply(200, self.metrics.render(), self.metrics.content_type)

    async def document(self, call: RequestContext, key: ApiKey) -> None:
        """Handle ``GET /openapi.json``."""
        await call.reply(200, metadata_endpoints.openapi(self.settings.project))

    async def docs(self, call: RequestContext, key: ApiKey) -> None:
        """Handle ``GET /docs``: the HTML page of the API."""
        page = metadata_endpoints.docs_page(self.settings.project, call.header("host"), https=call.https)
        policy = build_page_policy(render.hash_style()).encode()
        await call.reply(200, page, "text/html; charset=utf-8", [(b"content-security-policy", policy)])

    async def wait_pending(self) -> None:
        """Wait until the tasks that outlive their requests (writes to the inference log) are done."""
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _refuse_method(call: RequestContext, method: str) -> None:
    allowed = ("GET", "HEAD") if method == "GET" else (method,)
    if call.method not in allowed:
        raise ApiError(
            f"{call.path[:200]} takes {method}, not {call.method[:20]}", status=405, allow=", ".join(allowed)
        )

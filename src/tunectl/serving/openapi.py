"""The OpenAPI 3.1 document: every route with its key, its body, each of its answers, and the common format of errors."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from tunectl.access.scopes import KeyScope
from tunectl.serving import responses
from tunectl.serving.requests import ChatRequest, CompletionRequest, FeedbackRequest

HTML, TEXT, EVENTS, FORM = "text/html", "text/plain", "text/event-stream", "application/x-www-form-urlencoded"
AuthRequirement = KeyScope | Literal["any", "none", "page"]
"""What a route needs: a key of that scope, any key, nothing, or the sign-in of the arena."""


class FormBody(Struct, frozen=True):
    """Body of a route that accepts an HTML form: the names of its fields."""

    fields: tuple[str, ...]


class RouteSpec(Struct, frozen=True):
    """Description of one route for the OpenAPI document: its key, body and responses."""

    method: Literal["get", "post"]
    path: str
    auth: AuthRequirement
    summary: str
    body: type | FormBody | None
    success: dict[int, type | str | None]
    """Type of the answer by status, or the content type where it is no JSON; None is an empty answer."""
    streams: bool = False


def _page(method: Literal["get", "post"], path: str, summary: str, *fields: str, status: int = 200) -> RouteSpec:
    body = FormBody(fields) if method == "post" else None
    return RouteSpec(method, path, "page", summary, body, {status: HTML if status == 200 else None})


ROUTES: Final = (
    RouteSpec("post", "/v1/chat/completions", "chat", "Continue a conversation; streams with stream: true.",
              ChatRequest, {200: responses.ChatCompletion}, streams=True),
    RouteSpec("post", "/v1/completions", "chat", "Continue a text; streams with stream: true.",
              CompletionRequest, {200: responses.TextCompletion}, streams=True),
    RouteSpec("get", "/v1/models", "chat", "What is served: champion, challenger, base, and which was made from which.",
              None, {200: responses.Models}),
    RouteSpec("get", "/v1/models/{model}", "chat", "One of them.", None, {200: responses.ModelEntry}),
    RouteSpec("post", "/v1/feedback", "feedback", "Give feedback on an answer; the same id twice from one key counts once.",
              FeedbackRequest, {201: responses.FeedbackAccepted, 200: responses.FeedbackAccepted}),
    RouteSpec("get", "/metrics", "scrape", "Prometheus text.", None, {200: TEXT}),
    RouteSpec("get", "/healthz", "none", "Whether the process lives. Needs no key.", None, {200: responses.Liveness}),
    RouteSpec("get", "/livez", "none", "The same.", None, {200: responses.Liveness}),
    RouteSpec("get", "/readyz", "none", "Whether it can answer, and why not. Needs no key; with one, errors say where, too.", None,
              {200: responses.Readiness, 503: responses.Readiness}),
    RouteSpec("get", "/openapi.json", "any", "This document.", None, {200: "application/json"}),
    RouteSpec("get", "/docs", "any", "A page that lists the routes.", None, {200: HTML}),
    _page("get", "/arena", "The page on which people chat and choose between two answers; without a sign-in, its sign-in page."),
    _page("post", "/arena/enter", "Sign in with a key of scope chat.", "name", "key", status=303),
    _page("post", "/arena/leave", "Sign out.", status=303),
    _page("post", "/arena/ask", "Let both answer.", "text"),
    _page("post", "/arena/said", "Choose.", "showing", "choice", "tag", "edit"),
    _page("post", "/arena/new", "Begin another conversation."),
)  # fmt: skip
"""Every route, without the arena's style and script, which are static files.

Paths, methods and keys are those of ``access/routes.py``: ``tests/serving/test_http_io.py`` fails where they differ.
"""


def build_openapi(title: str, version: str) -> bytes:
    """Return the OpenAPI document as JSON, with ``title`` and ``version`` in its ``info``."""
    shapes = [shape for route in ROUTES for shape in (route.body, *route.success.values()) if isinstance(shape, type)]
    shapes = [*dict.fromkeys([responses.Error, *shapes])]
    schemas, components = msgspec.json.schema_components(shapes, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(shapes, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method] = _operation(route, schema_of)
    key = {"type": "http", "scheme": "bearer", "description": "A key of `tunectl serve keys add`."}
    page = {"type": "apiKey", "in": "cookie", "name": "tunectl_arena"}
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": title, "version": version},
            "paths": paths,
            "components": {"schemas": components, "securitySchemes": {"key": key, "page": page}},
            "security": [{"key": []}],
        }
    )


def _operation(route: RouteSpec, schema_of: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": _name(route),
        "responses": _responses(route, schema_of),
    }
    if isinstance(route.body, FormBody):
        operation["requestBody"] = {"required": True, "content": {FORM: {"schema": _form(route.body)}}}
    elif route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema_of[route.body]}},
        }
    if "{model}" in route.path:
        operation["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]
    if route.auth in ("chat", "feedback", "scrape"):
        operation["description"] = f"Needs a key of scope {route.auth}, or admin."
    if route.auth in ("none", "page"):
        operation["security"] = (
            [] if route.auth == "none" or route.path in ("/arena", "/arena/enter") else [{"page": []}]
        )
    return operation


def _responses(route: RouteSpec, schema_of: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    result = {str(status): _content(shape, schema_of, streams=route.streams) for status, shape in route.success.items()}
    if route.auth == "page":
        wrong = {"description": "Why not", "content": {TEXT: {}, HTML: {}}}
        return {**result, "4XX": wrong, "507": wrong}
    wrong = _content(responses.Error, schema_of, streams=False) | {"description": "An error"}
    later = wrong | {"headers": {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}}
    result["4XX"] = wrong
    if route.auth != "none":
        result["429"] = later
    if route.body is not None:
        result |= {"503": later}
    return result | ({"504": wrong} if route.streams else {})


def _content(shape: type | str | None, schema_of: dict[Any, dict[str, Any]], *, streams: bool) -> dict[str, Any]:
    if shape is None:
        return {"description": "The way on"}
    content: dict[str, Any] = (
        {shape: {}} if isinstance(shape, str) else {"application/json": {"schema": schema_of[shape]}}
    )
    return {"description": "The answer", "content": {**content, EVENTS: {}} if streams else content}


def _form(form: FormBody) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": "string"} for name in form.fields}}


def _name(route: RouteSpec) -> str:
    return f"{route.method}{route.path.title()}".translate(str.maketrans("", "", "/.{}"))

"""What the server says about itself: models, readiness, its OpenAPI document and a page that shows it."""

from __future__ import annotations

import re
from html import escape
from typing import Any

import msgspec

from tunectl import __version__
from tunectl.config.serve import ServeSettings
from tunectl.services.server.residents import Residents
from tunectl.serving.arms import ARMS
from tunectl.serving.schema import ChatRequest, CompletionRequest, FeedbackRequest


def models(settings: ServeSettings, residents: Residents) -> list[dict[str, Any]]:
    """Every name that a request may ask for, with its release and the model that it was made from."""
    found: list[dict[str, Any]] = []
    champion = residents.loaded.get("champion")
    if champion is None:
        return found
    base = champion.contract.base.source
    names = [settings.project, *settings.serve.names]
    found += [_model(name, champion.created, champion.id, "champion", parent=base, root="champion") for name in names]
    for arm in ARMS:
        one = residents.loaded.get(arm)
        if one is None:
            continue
        source = one.contract.base
        if arm == "base":
            found.append(
                {
                    **_model("base", one.created, one.id, arm, parent=None, root=source.source),
                    "revision": source.revision,
                }
            )
        else:
            found += [
                _model(name, one.created, one.id, arm, parent=source.source, root=one.id) for name in (arm, one.id)
            ]
    if "base" not in residents.loaded:
        found.append({**_model(base, champion.created, champion.id, "base", parent=None, root=base), "served": False})
    return found


def _model(name: str, created: int, release: str, arm: str, *, parent: str | None, root: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "tunectl",
        "root": root,
        "parent": parent,
        "release": release,
        "arm": arm,
    }


def state(residents: Residents) -> dict[str, Any]:
    """What ``/readyz`` says beside yes or no: each arm's release, its proof, and what is wrong."""
    arms: dict[str, Any] = {}
    for arm, one in residents.loaded.items():
        arms[arm] = {"release": one.id}
        if one.proof is not None:
            proof = one.proof
            arms[arm] |= {
                "agreement": round(proof.agreement, 4),
                "logprob_gap": round(proof.logprob_gap, 4),
                "as_base": proof.as_base,
                "probes": proof.probes,
            }
    said: dict[str, Any] = {"arms": arms}
    if residents.trouble:
        said["trouble"] = residents.trouble
    if "champion" not in residents.loaded:
        said["reason"] = residents.trouble.get("champion", "the champion is being loaded")
    return said


_ROUTES: tuple[tuple[str, str, str, type | None], ...] = (
    ("/v1/chat/completions", "post", "Continue a conversation; streams with stream: true.", ChatRequest),
    ("/v1/completions", "post", "Continue a text; streams with stream: true.", CompletionRequest),
    ("/v1/models", "get", "What is served: champion, challenger, base, and which was made from which.", None),
    ("/v1/models/{model}", "get", "One of them.", None),
    ("/v1/feedback", "post", "Say something about an answer; the same id twice counts once.", FeedbackRequest),
    ("/metrics", "get", "Prometheus text.", None),
    ("/healthz", "get", "Whether the process lives. Needs no key.", None),
    ("/readyz", "get", "Whether it can answer, and why not. Needs no key.", None),
)


def openapi(project: str) -> bytes:
    """The OpenAPI 3.1 document of these routes."""
    bodies = [shape for *_, shape in _ROUTES if shape is not None]
    schemas, components = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
    by_shape = dict(zip(bodies, schemas, strict=True))
    paths = {
        path: {method: _operation(path, text, by_shape.get(shape) if shape else None)}
        for path, method, text, shape in _ROUTES
    }
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": project, "version": __version__},
            "paths": paths,
            "components": {
                "schemas": {**components, "Error": _ERROR},
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
            "security": [{"key": []}],
        }
    )


_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def _operation(path: str, text: str, body: dict[str, Any] | None) -> dict[str, Any]:
    kind = "text/plain" if path == "/metrics" else "application/json"
    wrong = {
        "description": "An error",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    fine: dict[str, Any] = {"description": "The answer", "content": {kind: {}}}
    if body is not None and path != "/v1/feedback":
        fine["content"]["text/event-stream"] = {}
    codes = ["200", *(["201"] if path == "/v1/feedback" else [])]
    said: dict[str, Any] = {
        "summary": text,
        "responses": {**dict.fromkeys(codes, fine), "4XX": wrong, "503": wrong, "504": wrong},
    }
    if body is not None:
        said["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    if "{model}" in path:
        said["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]
    if path in ("/healthz", "/readyz"):
        said["security"] = []
    return said


def docs(project: str) -> bytes:
    """A page that lists the routes; no script, nothing from elsewhere."""
    rows = "".join(
        f"<tr><td><code>{method.upper()} {escape(re.sub(r'[{}]', '', path))}</code></td><td>{escape(text)}</td></tr>"
        for path, method, text, _ in _ROUTES
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(project)}</title>"
        "<style>body{font:16px/1.5 system-ui;max-width:50rem;margin:2rem auto;padding:0 1rem}td{padding:.3rem 1rem .3rem 0;"
        "vertical-align:top}pre{background:#8881;padding:1rem;overflow:auto}</style>"
        f"<h1>{escape(project)}</h1><p>Speaks OpenAI's protocol: give a client <code>/v1</code> of this address as its base URL "
        "and a key of <code>tunectl serve keys add</code>.</p>"
        f"<table>{rows}</table><p>All of it: <a href=openapi.json>openapi.json</a></p>"
        f"<pre>curl -H 'Authorization: Bearer KEY' -H 'Content-Type: application/json' \\\n"
        f'  -d \'{{"model": "{escape(project)}", "messages": [{{"role": "user", "content": "Hello"}}]}}\' \\\n'
        "  http://ADDRESS/v1/chat/completions</pre>"
    ).encode()

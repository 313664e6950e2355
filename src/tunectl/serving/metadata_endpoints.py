"""Bodies of the routes about the server: models, readiness, the OpenAPI document and its HTML page."""

from __future__ import annotations

from html import escape
from typing import Any

from tunectl import __version__
from tunectl.artifacts import names
from tunectl.artifacts.canary_state import VARIANTS
from tunectl.backends.reports import render
from tunectl.config.schema.serve import ServeSettings
from tunectl.serving import openapi as serving_openapi
from tunectl.serving.model_manager import ModelManager


def models(settings: ServeSettings, model_manager: ModelManager) -> list[dict[str, Any]]:
    """Return one entry per name that a request may use, with its release and base model, as ``GET /v1/models`` lists them."""
    result: list[dict[str, Any]] = []
    champion = model_manager.loaded.get("champion")
    if champion is None:
        return result
    base = champion.contract.base.source
    served = [settings.project, *settings.serve.served_model_names]
    result += [_model(name, champion.created, champion.id, "champion", parent=base, root="champion") for name in served]
    for variant in VARIANTS:
        loaded = model_manager.loaded.get(variant)
        if loaded is None:
            continue
        source = loaded.contract.base
        if variant == "base":
            result.append(
                {
                    **_model("base", loaded.created, loaded.id, variant, parent=None, root=source.source),
                    "revision": source.revision,
                }
            )
        else:
            result += [
                _model(name, loaded.created, loaded.id, variant, parent=source.source, root=loaded.id)
                for name in (variant, loaded.id)
            ]
    if "base" not in model_manager.loaded:
        result.append({**_model(base, champion.created, champion.id, "base", parent=None, root=base), "served": False})
    return result


def _model(name: str, created: int, release: str, variant: str, *, parent: str | None, root: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "tunectl",
        "root": root,
        "parent": parent,
        "release": release,
        "variant": variant,
    }


def readiness_body(model_manager: ModelManager, *, locations: bool = True) -> dict[str, Any]:
    """Return the body of ``/readyz``: each variant's release, the result of its adapter proof, and errors.

    ``locations`` False: the request had no key, so errors are shown without paths and addresses.
    """
    variants: dict[str, Any] = {}
    for variant, item in model_manager.loaded.items():
        variants[variant] = {"release": item.id}
        if item.proof is not None:
            proof = item.proof
            variants[variant] |= {
                "agreement": round(proof.agreement, 4),
                "logprob_gap": round(proof.logprob_gap, 4),
                "as_base": proof.as_base,
                "probes": proof.probes,
            }
    body: dict[str, Any] = {"variants": variants}
    if model_manager.trouble or model_manager.warning:
        if model_manager.ready:
            body["status"] = "degraded"
        body["problems"] = {
            **model_manager.trouble,
            **({"registry": model_manager.warning} if model_manager.warning else {}),
        }
    if "champion" not in model_manager.loaded:
        body["reason"] = model_manager.trouble.get("champion", "the champion is being loaded")
    return body if locations else _hide_locations(body)


def _hide_locations(value: Any) -> Any:
    """Return the value with only the end of each absolute path and address in its texts: from the id of a release on, or the last part."""
    if isinstance(value, dict):
        return {name: _hide_locations(item) for name, item in value.items()}
    return " ".join(map(_shorten_location, value.split(" "))) if isinstance(value, str) else value


def _shorten_location(token: str) -> str:
    text = token.lstrip("'\"(")
    if "://" not in text and not text.startswith("/"):
        return token
    location = text.rstrip("/:;,.)'\"")
    parts = location.split("/")
    first = next((index for index, part in enumerate(parts) if names.is_content_id(part)), len(parts) - 1)
    return token[: len(token) - len(text)] + "/".join(parts[first:]) + text[len(location) :].lstrip("/")


def openapi(project: str) -> bytes:
    """Return the OpenAPI document of this server as JSON."""
    return serving_openapi.build_openapi(project, __version__)


def docs_page(project: str, host: str, *, https: bool) -> bytes:
    """Return an HTML page that lists the routes, without scripts and external files. ``host`` is the host name of the request."""
    rows = "".join(
        f"<dt><code>{route.method.upper()} {escape(route.path)}</code><dd>{escape(route.summary)}"
        for route in serving_openapi.ROUTES
        if route.auth != "page"
    )
    name, address = escape(project), escape(f"{'https' if https else 'http'}://{host or 'ADDRESS'}")
    return _DOCS.format(name=name, address=address, rows=rows, style=render.read_style()).encode()


_DOCS = """<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<link rel=icon href="data:,"><title>{name}</title>
<style>{style}</style>
<main class=single><h1>{name}</h1>
<p>Speaks OpenAI's protocol: the base URL is <code>{address}/v1</code>, a key comes from <code>tunectl serve keys add</code>.
<pre>curl {address}/v1/chat/completions -H 'Authorization: Bearer KEY' -H 'Content-Type: application/json' \\
  -d '{{"model": "{name}", "messages": [{{"role": "user", "content": "Hello"}}]}}'</pre>
<pre>from openai import OpenAI
client = OpenAI(base_url="{address}/v1", api_key="KEY")
client.chat.completions.create(model="{name}", messages=[{{"role": "user", "content": "Hello"}}])</pre>
<p>What people think of an answer, by the <code>id</code> that it came with: thumb (up, down), rating (1 to 5), preference, edit, click, conversion.
<pre>curl {address}/v1/feedback -H 'Authorization: Bearer KEY' -H 'Content-Type: application/json' \\
  -d '{{"inference_id": "chatcmpl-...", "kind": "thumb", "value": "up"}}'</pre>
<p><a href=arena>Arena</a>: chat, and choose between two answers. <a href=openapi.json>openapi.json</a>: all of it, for programs.
<dl>{rows}</dl></main>
"""

"""The page of the HTTP API: the server's OpenAPI document, with the prose under the fields. See ``generate_reference``."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from itertools import pairwise
from textwrap import dedent
from typing import Any

from reference_settings import render_table, strip_roles

from tunectl.access import api_errors
from tunectl.serving import openapi, requests, responses

HIDDEN = ("/arena", "/docs", "/openapi.json")
"""Beginnings of paths that are pages for people, or the document itself."""
MODULES = (requests, responses, api_errors)
"""Where the classes of bodies and answers stand."""


def render_http() -> str:
    """Return one section a route, and one a body or answer."""
    document = json.loads(openapi.build_openapi("tunectl", "1"))
    text = (
        "# HTTP API\n\n"
        "What `tunectl serve` and a Bento answer, in the words of OpenAI where it has them; a client of OpenAI works with\n"
        "the base URL `http://HOST:PORT/v1` and a key of `tunectl serve keys add`. A running server has the same as\n"
        "`/openapi.json`. What opens each route: [Routes](routes.md).\n"
    )
    for path, methods in document["paths"].items():
        if not path.startswith(HIDDEN):
            for method, operation in methods.items():
                text += render_operation(method, path, operation)
    schemas = document["components"]["schemas"]
    shown = sorted(name for name in schemas if name != "Error")
    text += "\n## Bodies and answers\n"
    for name in shown:
        text += f"\n### {name}\n\n" + render_schema(name, schemas[name])
    return text


def render_operation(method: str, path: str, operation: dict[str, Any]) -> str:
    """Return the section of one route."""
    text = f"\n## {method.upper()} {path}\n\n{operation['summary']}"
    if "description" in operation:
        text += f" {operation['description']}"
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body:
        text += f"\n\nBody: {describe(body['schema'])}."
    rows = [(status, describe_answer(answer)) for status, answer in sorted(operation["responses"].items())]
    return text + "\n\n" + render_table(("status", "answer"), rows)


def describe_answer(answer: dict[str, Any]) -> str:
    """Return the shape of an answer, or its content type; a stream is named."""
    parts = []
    for kind, content in answer.get("content", {}).items():
        shape = describe(content["schema"]) if "schema" in content else f"`{kind}`"
        parts.append("OpenAI's error object" if shape == "[Error](#error)" else shape)
    headers = ", ".join(f"`{name}`" for name in answer.get("headers", ()))
    return " or ".join(parts) + (f", with {headers}" if headers else "")


def render_schema(name: str, schema: dict[str, Any]) -> str:
    """Return what a body or answer is, and its fields."""
    kind = next((getattr(module, name) for module in MODULES if hasattr(module, name)), None)
    head = strip_roles(inspect.getdoc(kind) or "").partition("\n\n")[0] if kind else ""
    prose = dict(read_prose(kind)) if kind else {}
    required = set(schema.get("required", ()))
    rows = [
        (f"`{field}`", describe(shape), "yes" if field in required else "", strip_roles(prose.get(field, "")))
        for field, shape in schema.get("properties", {}).items()
    ]
    table = render_table(("field", "allowed", "required", "meaning"), rows) if rows else ""
    return (f"{head}\n\n" if head else "") + table


def read_prose(kind: type) -> Iterator[tuple[str, str]]:
    """Yield the fields of a class, its base classes first, with the text that stands under each."""
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("tunectl."):
            (tree,) = ast.parse(dedent(inspect.getsource(base))).body
            body = tree.body if isinstance(tree, ast.ClassDef) else []
            for node, after in pairwise(body):
                text = (
                    after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
                )
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(text, str):
                    yield node.target.id, " ".join(text.split())


def describe(schema: dict[str, Any]) -> str:
    """Return a JSON schema in a few words; null is left out, as every optional field takes it."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(describe(part) for part in schema["anyOf"] if part.get("type") != "null"))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    return describe_plain(schema)


def describe_plain(schema: dict[str, Any]) -> str:
    """Return what a number, text, list or object may be."""
    kind = schema.get("type")
    if kind in {"integer", "number"}:
        word = "whole number" if kind == "integer" else "number"
        low, high = (schema.get(name) for name in ("minimum", "maximum"))
        low = schema.get("exclusiveMinimum", low)
        above = "above " if "exclusiveMinimum" in schema else ""
        if abs(low or 0) > 2**53 or (low is None and high is None):
            return word
        return f"{word} {above}{low} to {high}" if high is not None else f"{word} from {above}{low} on"
    if kind == "string":
        most = schema.get("maxLength")
        return f"text of at most {most} characters" if most else "text"
    if kind == "array":
        return f"list of {describe(schema.get('items', {}))}"
    words = {"boolean": "true or false", "object": "object", "null": "null"}
    return words.get(str(kind), "any value")

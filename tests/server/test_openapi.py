"""Our own OpenAPI document against the server that hands it out: fuzzed by schemathesis, and held against real answers.

TUNECTL_FUZZ: how many requests are drawn for each route, 10 by default; beside them each bound and each missing field is
tried in turn. ``make faults`` draws more.
"""

from __future__ import annotations

import json
import os
from typing import Any

import hypothesis
import msgspec
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from serving_process import Server

from tunectl.serving import answers

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
    allow_header_conformance,
    ignored_auth,
]
SHORT = 3
"""Tokens of an answer here."""


@pytest.fixture(scope="session")
def described(server: Server) -> schemathesis.BaseSchema:
    """The document as this server hands it out."""
    return schemathesis.openapi.from_dict(json.loads(server.call("/openapi.json")[2]))


@pytest.fixture(scope="session")
def exchange(server: Server) -> str:
    """The id of an answer, so that feedback is about something."""
    said = server.call("/v1/completions", {"model": "shop", "prompt": "a", "max_tokens": 1})[2]
    return json.loads(said)["id"]


def deep(body: Any, exchange: str) -> Any:
    """A drawn body that gets further than the first check: it names what there is, and asks for little."""
    if not isinstance(body, dict):
        return body
    known = {"model": "shop", "exchange_id": exchange}
    tame = {name: known[name] if name in known and isinstance(value, str) else value for name, value in body.items()}
    for name, most in (("max_tokens", SHORT), ("max_completion_tokens", SHORT), ("n", 2), ("best_of", 2)):
        value = tame.get(name)
        if isinstance(value, int) and value > most:
            tame[name] = 1 + value % most
    return {"max_tokens": SHORT, **tame} if "model" in tame else tame


schema = schemathesis.pytest.from_fixture("described")


@schema.parametrize()
@hypothesis.settings(
    max_examples=int(os.environ.get("TUNECTL_FUZZ", "10")),
    deadline=None,
    derandomize="TUNECTL_FUZZ" not in os.environ,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
@pytest.mark.timeout(1800)
def test_nothing_that_the_document_allows_or_forbids_breaks_the_server(
    case: schemathesis.Case, server: Server, exchange: str
) -> None:
    case.body = deep(case.body, exchange)
    case.call_and_validate(
        base_url=server.address, headers={"Authorization": f"Bearer {server.keys['admin']}"}, checks=CHECKS
    )


def test_every_answer_has_the_documented_shape(server: Server) -> None:
    hi = {"model": "shop", "max_tokens": 2, "messages": [{"role": "user", "content": "Hi"}], "n": 2}
    asked = {
        ("/v1/chat/completions", answers.ChatCompletion): {**hi, "logprobs": True},
        ("/v1/completions", answers.TextCompletion): {
            "model": "shop",
            "prompt": ["a", "b"],
            "max_tokens": 2,
            "logprobs": 1,
        },
        ("/v1/models", answers.Models): None,
        ("/v1/models/shop", answers.Model): None,
        ("/healthz", answers.Alive): None,
        ("/readyz", answers.Ready): None,
        ("/v1/models/none", answers.Error): None,
    }
    for (path, shape), body in asked.items():
        said = server.call(path, body)[2]
        found = msgspec.json.decode(said, type=shape)
        assert (
            msgspec.to_builtins(found) == {"trouble": {}, **json.loads(said)}
            if shape is answers.Ready
            else json.loads(said)
        )
    named = {"exchange_id": found_id(server), "kind": "thumb", "value": "up"}
    msgspec.json.decode(server.call("/v1/feedback", named, key=server.keys["feedback"])[2], type=answers.Kept)


def found_id(server: Server) -> str:
    return json.loads(server.call("/v1/completions", {"model": "shop", "prompt": "a", "max_tokens": 1})[2])["id"]

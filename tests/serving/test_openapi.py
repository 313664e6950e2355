"""Our own OpenAPI document against the server that hands it out: fuzzed by schemathesis, and held against real answers.

TUNECTL_FUZZ: how many requests are drawn for each route, 8 by default; beside them each bound and each missing field is
tried in turn. ``make faults`` draws more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import fuzz_hooks
import msgspec
import pytest
from serving_process import Server

from tunectl.serving import responses

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,unsupported_method,allow_header_conformance,ignored_auth"
)


def inference(server: Server) -> str:
    """The id of an answer, so that feedback is about something."""
    return json.loads(server.call("/v1/completions", {"model": "shop", "prompt": "a", "max_tokens": 1})[2])["id"]


@pytest.mark.timeout(3600)
def test_nothing_that_the_document_allows_or_forbids_breaks_the_server(server: Server, tmp_path: Path) -> None:
    count = os.environ.get("TUNECTL_FUZZ", "8")
    words = ["run", f"{server.address}/openapi.json", "--header", f"Authorization: Bearer {server.keys['admin']}"]
    words += ["--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--max-examples", count, "--seed", "1"]
    words += ["--suppress-health-check", "all", "--generation-database", "none", "--continue-on-failure", "--no-color"]
    words += ["--warnings", "off", "--request-timeout", "60"]
    hooks = {"PYTHONPATH": str(Path(fuzz_hooks.__file__).parent), "SCHEMATHESIS_HOOKS": "fuzz_hooks"}
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", *words],
        cwd=tmp_path,
        env={**os.environ, **hooks, "TUNECTL_INFERENCE_ID": inference(server)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    print(done.stdout[-2000:])
    assert server.ready()[0]


def test_every_answer_has_the_documented_shape(server: Server) -> None:
    hi = {"model": "shop", "max_tokens": 2, "messages": [{"role": "user", "content": "Hi"}], "n": 2, "logprobs": True}
    texts = {"model": "shop", "prompt": ["a", "b"], "max_tokens": 2, "logprobs": 1}
    asked = {
        ("/v1/chat/completions", responses.ChatCompletion): hi,
        ("/v1/completions", responses.TextCompletion): texts,
        ("/v1/models", responses.Models): None,
        ("/v1/models/shop", responses.ModelEntry): None,
        ("/healthz", responses.Liveness): None,
        ("/readyz", responses.Readiness): None,
        ("/v1/models/none", responses.Error): None,
    }
    for (path, shape), body in asked.items():
        said = json.loads(server.call(path, body)[2])
        found = msgspec.to_builtins(msgspec.convert(said, shape))
        assert found == ({"problems": {}, **said} if shape is responses.Readiness else said)
    thumb = {"inference_id": inference(server), "kind": "thumb", "value": "up"}
    msgspec.json.decode(
        server.call("/v1/feedback", thumb, key=server.keys["feedback"])[2], type=responses.FeedbackAccepted
    )

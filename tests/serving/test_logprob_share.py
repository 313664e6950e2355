"""Log-probabilities for a share of the answers: what clients get is the same, and the inference log says what was not computed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving_process import Server

from tunectl.artifacts.records import InferenceRecord
from tunectl.backends.storage.inference_log_sql import open_log

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
HI = {"model": "shop", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 6}


@pytest.fixture(scope="module")
def frugal(releases: tuple[Path, str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that computes log-probabilities for nobody but who asks."""
    running = Server(
        tmp_path_factory.mktemp("frugal"),
        env={"TUNECTL_REGISTRY": str(releases[0])},
        limits__max_concurrency=4,
        inference_log__logprob_share=0.0,
    )
    try:
        running.until_ready(240)
        yield running
    finally:
        running.stop()


def ask(server: Server, **other: Any) -> dict[str, Any]:
    status, _, body = server.call("/v1/chat/completions", {**HI, **other})
    assert status == 200, body
    if other.get("stream"):
        events = [line[6:] for line in body.decode().split("\n\n") if line.startswith("data: {")]
        return join(list(map(json.loads, events)))
    return json.loads(body)


def join(events: list[dict[str, Any]]) -> dict[str, Any]:
    """What a stream says in all: where its events begin and end depends on the time at which tokens came."""
    choices = [choice for event in events for choice in event["choices"]]
    tokens = [each for choice in choices for each in (choice.get("logprobs") or {}).get("content") or []]
    about = {name: events[0][name] for name in ("id", "created", "model", "system_fingerprint")}
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    return {**about, "text": text, "logprobs": tokens, "finish": choices[-1]["finish_reason"]}


def drop_names(told: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name not in ("id", "created")}


def kept(server: Server, name: str) -> InferenceRecord:
    with open_log("sqlite:///.tunectl/inference_log/inference_log.sqlite", server.folder) as store:
        found = store.inference(name)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"temperature": 1.0, "seed": 3, "n": 2},
        {"stream": True},
        {"logprobs": True},
        {"stream": True, "logprobs": True},
    ],
    ids=["whole", "sampled", "streamed", "asked", "asked and streamed"],
)
def test_clients_get_the_same_and_the_log_has_what_was_computed(
    server: Server, frugal: Server, other: dict[str, Any]
) -> None:
    usual, sparing = ask(server, **other), ask(frugal, **other)
    assert drop_names(sparing) == drop_names(usual)
    usual_row, sparing_row = kept(server, usual["id"]), kept(frugal, sparing["id"])
    assert usual_row.mean_logprob is not None
    expected = usual_row.mean_logprob if other.get("logprobs") else None
    assert sparing_row.mean_logprob == expected
    assert sparing_row.completion_tokens == usual_row.completion_tokens


def test_a_server_that_computes_none_proves_its_release_all_the_same(frugal: Server) -> None:
    ready, told = frugal.ready()
    assert ready
    proof = told["models"]["champion"]["proof"] if "models" in told else told
    assert "logprob_gap" in json.dumps(proof)

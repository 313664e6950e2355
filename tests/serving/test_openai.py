"""The stock `openai` client and `curl` against a real server: on the reference engine, and on the one that people use."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pydantic
import pytest
from openvino_release import openvino_release
from serving_process import Server
from tiny_release import stored

from tunectl.registry.release_store import ReleaseRegistry

HI = [{"role": "user", "content": "Hi"}]
ENGINES = ["transformers", pytest.param("openvino", marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module", name="server")
def served(engine: str, server: Server, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server of the other tests for the reference engine, one of its own for OpenVINO."""
    if engine == "transformers":
        yield server
        return
    folder = tmp_path_factory.mktemp("openvino")
    name = stored(openvino_release(tiny_model, folder / "r1"), folder / "store")
    ReleaseRegistry(folder / "store").promote(name, author="test", message="first")
    env = {"TUNECTL_REGISTRY": str(folder / "store")}
    fast = Server(folder / "server", env=env, limits__max_concurrency=4, engine__threads=2)
    try:
        fast.until_ready(240)
        yield fast
    finally:
        fast.stop()


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.address}/v1", api_key=server.keys["chat"], max_retries=0, timeout=120)


def test_chat_whole_and_streamed_are_the_same(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="shop", messages=HI, max_tokens=12)
    parts = list(
        client.chat.completions.create(
            model="shop", messages=HI, max_tokens=12, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert text == whole.choices[0].message.content
    assert parts[0].choices[0].delta.role == "assistant"
    assert parts[-1].usage == whole.usage
    assert whole.usage.completion_tokens == 12
    assert (
        [part.choices[0].finish_reason for part in parts if part.choices][-1]
        == whole.choices[0].finish_reason
        == "length"
    )
    without = list(client.chat.completions.create(model="shop", messages=HI, max_tokens=3, stream=True))
    assert all(part.usage is None for part in without)


def test_seed_n_and_temperature(client: openai.OpenAI) -> None:
    def said(seed: int) -> list[str]:
        found = client.chat.completions.create(
            model="shop", messages=HI, max_tokens=8, temperature=1.0, top_p=0.9, n=3, seed=seed
        )
        return [choice.message.content for choice in found.choices]

    first = said(7)
    assert first == said(7)
    assert first != said(8)
    assert len(set(first)) > 1


def test_several_answers_in_one_stream(client: openai.OpenAI) -> None:
    asked = {"model": "shop", "messages": HI, "max_tokens": 6, "temperature": 1.0, "n": 2, "seed": 5}
    whole = client.chat.completions.create(**asked)
    texts, ends = ["", ""], ["", ""]
    for part in client.chat.completions.create(**asked, stream=True):
        for choice in part.choices:
            texts[choice.index] += choice.delta.content or ""
            ends[choice.index] = choice.finish_reason or ends[choice.index]
    assert texts == [choice.message.content for choice in whole.choices]
    assert ends == [choice.finish_reason for choice in whole.choices]


def test_a_stream_that_is_closed_is_cancelled(client: openai.OpenAI, server: Server) -> None:
    cancelled = 'tunectl_requests_total{finished_reason="cancelled"}'
    before = server.metrics()
    stream = client.chat.completions.create(
        model="shop", messages=HI, max_tokens=480, temperature=1.0, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    stream.close()
    until = time.monotonic() + 30
    while server.metrics()["tunectl_requests_running"] > 0:
        assert time.monotonic() < until
        time.sleep(0.02)
    found = server.metrics()
    assert found[cancelled] == before[cancelled] + 1
    assert found["tunectl_generation_tokens_total"] - before["tunectl_generation_tokens_total"] < 480


def test_an_answer_is_counted_once_in_every_number(client: openai.OpenAI, server: Server) -> None:
    before = server.metrics()
    said = client.chat.completions.create(model="shop", messages=HI, max_tokens=5)
    after = server.metrics()
    risen = {name: after[name] - before.get(name, 0.0) for name in after if after[name] != before.get(name, 0.0)}
    tokens, end = said.usage, said.choices[0].finish_reason
    for name in ("time_to_first_token", "e2e_request_latency", "request_queue_time"):
        assert risen[f"tunectl_{name}_seconds_count"] == 1
    assert risen["tunectl_inter_token_latency_seconds_count"] == tokens.completion_tokens - 1
    assert risen["tunectl_prompt_tokens_total"] == tokens.prompt_tokens
    assert risen["tunectl_generation_tokens_total"] == tokens.completion_tokens
    assert risen[f'tunectl_requests_total{{finished_reason="{end}"}}'] == 1
    assert after["tunectl_requests_running"] == after["tunectl_requests_waiting"] == 0


def test_stop_ends_the_text_before_it(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="shop", prompt="Tell me", max_tokens=12).choices[0].text
    stop = next(letter for letter in whole[2:] if letter != "\ufffd" and letter not in whole[:2])
    for stream in (False, True):
        found = client.completions.create(
            model="shop", prompt="Tell me", max_tokens=12, stop=[stop, "never"], stream=stream
        )
        parts = list(found) if stream else [found]
        assert "".join(part.choices[0].text for part in parts) == whole[: whole.index(stop)]
        assert parts[-1].choices[0].finish_reason == "stop"


def test_logprobs_of_both_routes(client: openai.OpenAI) -> None:
    chat = (
        client.chat.completions.create(model="shop", messages=HI, max_tokens=4, logprobs=True)
        .choices[0]
        .logprobs.content
    )
    parts = client.chat.completions.create(model="shop", messages=HI, max_tokens=4, logprobs=True, stream=True)
    streamed = [
        one for part in parts if part.choices and part.choices[0].logprobs for one in part.choices[0].logprobs.content
    ]
    assert [(one.token, one.logprob) for one in chat] == [(one.token, one.logprob) for one in streamed]
    assert all(one.logprob <= 0 for one in chat)
    plain = client.completions.create(model="shop", prompt="a", max_tokens=3, logprobs=1).choices[0].logprobs
    assert len(plain.tokens) == len(plain.token_logprobs) == 3


def test_several_prompts_and_token_ids(client: openai.OpenAI) -> None:
    texts = client.completions.create(model="shop", prompt=["Hi", "you"], max_tokens=3)
    assert [choice.index for choice in texts.choices] == [0, 1]
    alone = client.completions.create(model="shop", prompt="you", max_tokens=3)
    assert alone.choices[0].text == texts.choices[1].text
    assert client.completions.create(model="shop", prompt=[5, 6, 7], max_tokens=1).usage.prompt_tokens == 3


def test_models_say_what_was_made_from_what(client: openai.OpenAI, server: Server) -> None:
    release = server.ready()[1]["variants"]["champion"]["release"]
    found = {one.id: one for one in client.models.list()}
    assert set(found) == {"shop", "champion", release, "tiny"}
    assert found["champion"].parent == "tiny"
    assert found["champion"].root == release
    assert client.models.retrieve("shop").release == release


SCHEMA = {
    "type": "object",
    "properties": {"place": {"const": "Café ☕ 日本"}, "open": {"type": "boolean"}, "stars": {"enum": [3, 4, 5]}},
    "required": ["place", "open", "stars"],
    "additionalProperties": False,
}


@pytest.fixture
def form(engine: str, client: openai.OpenAI) -> dict:
    """A response format, where the engine can follow one; the reference says that it cannot."""
    found = {"type": "json_schema", "json_schema": {"name": "visit", "schema": SCHEMA, "strict": True}}
    if engine == "transformers":
        with pytest.raises(openai.BadRequestError, match="the engine transformers follows no schema"):
            client.chat.completions.create(model="shop", messages=HI, max_tokens=5, response_format=found)
    return found


def test_a_schema_is_followed_and_no_character_is_torn(engine: str, client: openai.OpenAI, form: dict) -> None:
    """In the tiny model a token is a byte, so every letter that is not ASCII is split across tokens."""
    if engine == "transformers":
        return
    whole = client.chat.completions.create(model="shop", messages=HI, max_tokens=120, response_format=form)
    said = json.loads(whole.choices[0].message.content)
    assert (said["place"], type(said["open"]), said["stars"] in (3, 4, 5)) == ("Café ☕ 日本", bool, True)
    stream = client.chat.completions.create(
        model="shop", messages=HI, max_tokens=120, response_format=form, stream=True, temperature=1.0, seed=1
    )
    parts = [part.choices[0].delta.content or "" for part in stream]
    assert not any("\ufffd" in part for part in parts)
    assert json.loads("".join(parts))["place"] == "Café ☕ 日本"


def test_parsed_into_a_class(engine: str, client: openai.OpenAI, form: dict) -> None:
    class Visit(pydantic.BaseModel):
        open: bool
        stars: int

    if engine == "transformers":
        return
    found = client.chat.completions.parse(model="shop", messages=HI, max_tokens=60, response_format=Visit)
    assert isinstance(found.choices[0].message.parsed, Visit)


def test_errors_are_openais(client: openai.OpenAI, server: Server) -> None:
    with pytest.raises(openai.NotFoundError, match="there are: shop, champion"):
        client.chat.completions.create(model="gpt-9", messages=HI)
    with pytest.raises(openai.BadRequestError, match="this model reads and writes at most 512 tokens together"):
        client.chat.completions.create(model="shop", messages=HI, max_tokens=5000)
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
    with pytest.raises(openai.BadRequestError, match=r"response_format.json_schema: #: type .*nonsense"):
        client.chat.completions.create(model="shop", messages=HI, response_format=schema)
    with pytest.raises(openai.AuthenticationError, match="that key is not known here"):
        openai.OpenAI(base_url=f"{server.address}/v1", api_key="tk-no", max_retries=0).models.list()


def test_curl(server: Server) -> None:
    body = json.dumps({"model": "shop", "messages": HI, "max_tokens": 3, "stream": True})
    done = subprocess.run(
        [
            "curl",
            "-sSN",
            f"{server.address}/v1/chat/completions",
            "-H",
            f"Authorization: Bearer {server.keys['chat']}",
            "-H",
            "Content-Type: application/json",
            "-d",
            body,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    events = [line for line in done.stdout.split("\n\n") if line]
    assert events[-1] == "data: [DONE]"
    assert all(line.startswith("data: ") for line in events)


def test_feedback_counts_once_and_knows_its_inference(client: openai.OpenAI, server: Server) -> None:
    asked = client.chat.completions.create(model="shop", messages=HI, max_tokens=2, user="ann@example.org")
    given = {"inference_id": asked.id, "kind": "rating", "value": 4}
    assert server.call("/v1/feedback", given, key=server.keys["feedback"])[0] == 201
    assert server.call("/v1/feedback", given, key=server.keys["feedback"])[0] == 200
    status, _, body = server.call("/v1/feedback", {**given, "value": 9}, key=server.keys["feedback"])
    said = json.loads(body)["error"]["message"]
    assert (status, said) == (400, "value of rating is 9; allowed is a number from 1 to 5")
    assert server.call("/v1/feedback", {**given, "inference_id": "no"}, key=server.keys["feedback"])[0] == 404
    assert server.metrics()['tunectl_feedback_total{kind="rating",variant="champion"}'] == 1

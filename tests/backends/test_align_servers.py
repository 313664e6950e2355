"""Learning from answers that vLLM servers write: adapters by folder, tokens by HTTP, and every refusal with what to do."""

import itertools

import pytest
import tiny_policies
from pydantic import ValidationError
from tiny_fits import digest
from tiny_policies import fit_here, policy_job
from vllm_stand_in import VllmStandIn

from tunectl.config.schema.align import VllmServer
from tunectl.core.errors import InfrastructureError, UsageError

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def start(tiny_model, tmp_path_factory):
    return tiny_policies.build_policy(tiny_model, tmp_path_factory.mktemp("policy"))


def servers(*urls, **changes):
    values = {"urls": urls, "api_key_env": None, "storage_path": None, "timeout_seconds": 30}
    return {"mode": "server", **values, **changes}


def fit(start, folder, vllm, method="rloo", **changes):
    chosen = tiny_policies.plan(method, rewards=tiny_policies.TERMS, prompts_per_step=3, vllm=vllm, **changes)
    job = policy_job(start, folder, chosen)
    return fit_here(job), job


@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_a_fit_learns_from_the_answers_of_servers_what_it_learns_alone(start, tmp_path, method):
    alone, job = fit(start, tmp_path / "alone", None, method, beta=0.1)
    with VllmStandIn(start[0]) as one, VllmStandIn(start[0]) as two:
        with_servers, other = fit(start, tmp_path / "servers", servers(one.url, two.url + "/"), method, beta=0.1)
        adapters = [server.adapters for server in (one, two)]
    assert [point.completions_crc32 for point in with_servers.history] == [
        point.completions_crc32 for point in alone.history
    ]
    for ours, theirs in zip(with_servers.history, alone.history, strict=True):
        assert ours.reward == pytest.approx(theirs.reward, abs=1e-6)
        assert ours.loss == pytest.approx(theirs.loss, abs=1e-4)
    assert with_servers.validation[-1].metric == pytest.approx(alone.validation[-1].metric, abs=1e-6)
    assert one.loaded == two.loaded
    assert len(set(one.loaded)) == len(one.loaded) == 9  # sft, and after each of eight steps
    assert adapters == [{}, {}]
    assert not list(other.work.glob("adapters-*"))
    sampled = [[body for body in server.asked if body["temperature"]] for server in (one, two)]
    assert [len(bodies) for bodies in sampled] == [16, 8]  # three prompts a step, in turn
    assert {body["n"] for body in itertools.chain(*sampled)} == {4}
    assert {body["model"] for body in one.asked} == set(one.loaded)
    assert one.asked[0] | {"prompt": None, "model": None} == {
        "model": None,
        "prompt": None,
        "n": 1,
        "max_tokens": 16,
        "temperature": 0.0,
        "top_p": 1.0,
        "stop_token_ids": [2],
        "return_token_ids": True,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }
    assert set(digest(job.out)) == set(digest(other.out))


def test_a_server_that_goes_away_is_named_and_the_same_command_goes_on(start, tmp_path):
    with VllmStandIn(start[0]) as server:
        whole, job = fit(start, tmp_path / "whole", servers(server.url), save_steps=2)
    with VllmStandIn(start[0]) as server:
        url, port = server.url, server.port
        own_answer = server._answer

        def leave(body):
            if len(server.loaded) == 6:  # after five steps
                server.adapters.clear()  # as a server does that was started again
            return own_answer(body)

        server._answer = leave
        with pytest.raises(InfrastructureError) as error:
            fit(start, tmp_path / "broken", servers(url), save_steps=2)
    name = server.loaded[-1]
    assert error.value.message == f"{url}/v1/completions answers HTTP 404: The model `{name}` does not exist."
    assert error.value.hint == "run the same command again to resume: its adapters are loaded anew"
    (tmp_path / "broken" / "out").rmdir()
    with VllmStandIn(start[0], port=port):
        resumed, again = fit(start, tmp_path / "broken", servers(url), save_steps=2)
    assert resumed.steps == 8
    assert [point.completions_crc32 for point in resumed.history] == [
        point.completions_crc32 for point in whole.history
    ]
    assert digest(again.out) == digest(job.out)


def fails(start, folder, vllm, kind=InfrastructureError, **changes):
    with pytest.raises(kind) as error:
        fit(start, folder, vllm, **changes)
    return error.value.message, error.value.hint


def test_an_address_where_nothing_listens(start, tmp_path):
    message, hint = fails(start, tmp_path, servers("http://127.0.0.1:9"))
    assert message.startswith("http://127.0.0.1:9 does not answer: ")
    assert hint == "start it, or correct align.vllm.urls; or write answers with transformers: align.vllm=null"


def test_a_server_of_another_model_is_found_by_what_it_computes(start, tiny_model, tmp_path):
    with VllmStandIn(tiny_model) as server:
        message, hint = fails(start, tmp_path, servers(server.url))
    assert message.startswith(
        f"{server.url} serves another model than {start[0]}: log-probabilities of a prompt differ by "
    )
    assert message.endswith(" nats a token; the limit is 0.25")
    assert hint == f"start it with the model that align learns on: vllm serve {start[0]} --enable-lora"


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (
            {"updating": False},
            "does not load adapters while it runs: HTTP 404 from /v1/load_lora_adapter",
            "start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment, and with --enable-lora",
        ),
        (
            {"lora": False},
            "was started without adapters: LoRA is not enabled. Use --enable-lora to enable LoRA.",
            "start it with --enable-lora",
        ),
        (
            {"max_model_len": 16},
            "takes 16 tokens, and a prompt with its answer may have 21",
            "start it with --max-model-len 21, or lower align.max_new_tokens",
        ),
        (
            {"token_ids": False},
            "does not return token ids (return_token_ids)",
            "take vLLM 0.10.2 or newer, or write answers with transformers: align.vllm=null",
        ),
        (
            {"api_key": "secret"},
            "/v1/models answers HTTP 401: Unauthorized",
            "align.vllm.api_key_env names the environment variable that holds its key",
        ),
    ],
)
def test_what_a_server_cannot_do_is_said_with_how_to_start_it(start, tmp_path, options, message, hint):
    with VllmStandIn(start[0], **options) as server:
        found = fails(start, tmp_path, servers(server.url))
    assert (found[0].removeprefix(server.url).strip(), found[1]) == (message, hint)
    assert server.adapters == {}


def test_a_rank_above_the_servers_is_said_with_the_option(start, tmp_path):
    with VllmStandIn(start[0], max_lora_rank=2) as server:
        message, hint = fails(start, tmp_path, servers(server.url))
    assert message == f"{server.url}: the adapter has rank 4, which is above the server's max_lora_rank"
    assert hint == "start it with --max-lora-rank 8, or train sft with a smaller sft.lora_rank"


def test_a_folder_that_a_server_does_not_see(start, tmp_path):
    with VllmStandIn(start[0], mounted=False) as server:
        message, hint = fails(start, tmp_path, servers(server.url))
    assert f"{server.url} does not see the adapter in {tmp_path}" in message
    assert hint == "set align.vllm.storage_path to a folder that the trainer and all servers see at the same path"


def test_a_key_comes_from_its_variable(start, tmp_path, monkeypatch):
    monkeypatch.delenv("SERVERS_KEY", raising=False)
    vllm = servers("http://127.0.0.1:9", api_key_env="SERVERS_KEY")
    message, hint = fails(start, tmp_path, vllm, UsageError)
    assert message == "align.vllm.api_key_env names SERVERS_KEY, but that variable is not set"
    assert hint == "export SERVERS_KEY=..., or start the servers without a key: align.vllm.api_key_env=null"
    monkeypatch.setenv("SERVERS_KEY", "secret")
    place = tmp_path / "shared"
    with VllmStandIn(start[0], api_key="secret") as server:
        vllm = servers(server.url, api_key_env="SERVERS_KEY", storage_path=str(place))
        found, _ = fit(start, tmp_path / "fit", vllm, steps=2)
    assert (found.steps, list(place.iterdir())) == (2, [])


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        (["http://one:8000", "http://one:8000/"], "urls names http://one:8000 more than once; name each server once"),
        (["http://one:8000/v1"], "urls has http://one:8000/v1; leave /v1 out"),
        (["one:8000"], "String should match pattern"),
        ([], "at least 1 item"),
    ],
)
def test_addresses_that_cannot_be_are_refused(urls, message):
    with pytest.raises(ValidationError, match=message):
        VllmServer(**servers(*urls))

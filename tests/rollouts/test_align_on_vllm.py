"""Learning from answers of a real vLLM: its CPU build, adapters loaded while it runs."""

import json
import urllib.request

import pytest
import tiny_policies
from vllm_server import VllmProcess, find_environment

from tunectl.core.errors import InfrastructureError

SHORT = {**tiny_policies.LENGTH, "normalize": "none"}
"""A reward that steps can be compared by: the answer has two tokens."""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def start(build_model, tmp_path_factory):
    """A policy whose attention heads are as wide as vLLM wants them."""
    folder = tmp_path_factory.mktemp("policy")
    build_model(folder / "wide", head_dim=32)
    return tiny_policies.build_policy(folder / "wide", folder)


@pytest.fixture(scope="module")
def server(start, tmp_path_factory):
    """It takes adapters of rank 8."""
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    started = VllmProcess(
        find_environment(), start[0], log, "--enable-lora", "--max-lora-rank", "8", "--max-loras", "2"
    )
    try:
        started.wait()
        yield started
    finally:
        started.close()


def fit(start, folder, url, **changes):
    vllm = {"mode": "server", "urls": [url], "api_key_env": None, "storage_path": None, "timeout_seconds": 120}
    chosen = tiny_policies.plan(rewards=[SHORT], prompts_per_step=4, vllm=vllm, **changes)
    return tiny_policies.fit_here(tiny_policies.policy_job(start, folder, chosen))


def list_models(url):
    with urllib.request.urlopen(f"{url}/v1/models") as answer:
        return [card["id"] for card in json.load(answer)["data"]]


def test_a_policy_learns_from_its_answers_and_each_state_of_the_adapter_is_loaded(start, server, tmp_path):
    url = server.url
    found = fit(start, tmp_path, url, steps=30, validation={"eval_steps": 15})
    first, last = found.history[:5], found.history[-5:]
    assert (found.steps, found.stopped, found.answers) == (30, None, 480)
    assert sum(point.reward for point in last) > sum(point.reward for point in first)
    assert found.history[0].kl == pytest.approx(0, abs=1e-4)
    assert found.validation[-1].kl > 0.01
    assert list_models(url) == [str(start[0])]
    assert not list((tmp_path / "work").glob("adapters-*"))
    log = server.log.read_text()
    assert log.count("Loaded new LoRA adapter") == 31
    assert log.count("Removed LoRA adapter") == 31


def test_greedy_answers_are_those_of_transformers(start, server, tmp_path):
    found = fit(start, tmp_path / "server", server.url, steps=1)
    alone = tiny_policies.plan(rewards=[SHORT], prompts_per_step=4, steps=1)
    other = tiny_policies.fit_here(tiny_policies.policy_job(start, tmp_path / "alone", alone))
    ours, theirs = ([sample.answer for sample in each.samples if not sample.step] for each in (found, other))
    assert ours == theirs


def test_a_rank_above_its_own_is_refused_with_the_option(start, server, tmp_path):
    import peft
    import torch
    import transformers

    from tunectl.backends.modeling import peft_adapter
    from tunectl.chat import model_spec

    model, _ = start
    base = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=12, lora_alpha=8, target_modules="all-linear")
    peft_adapter.save_adapter(peft.get_peft_model(base, config), {}, tmp_path / "sft", model_spec.load(model))
    model_spec.save(model_spec.load(model), tmp_path / "sft")
    with pytest.raises(InfrastructureError) as error:
        fit((model, tmp_path / "sft"), tmp_path, server.url)
    url = server.url
    assert error.value.message == f"{url}: the adapter has rank 12, which is above the server's max_lora_rank"
    assert error.value.hint == "start it with --max-lora-rank 16, or train sft with a smaller sft.lora_rank"


def test_a_server_of_another_model_is_refused(build_model, server, tmp_path):
    build_model(tmp_path / "other", head_dim=32, seed=1)
    other = tiny_policies.build_policy(tmp_path / "other", tmp_path)
    with pytest.raises(InfrastructureError) as error:
        fit(other, tmp_path, server.url)
    assert error.value.message.startswith(f"{server.url} serves another model than {other[0]}: ")

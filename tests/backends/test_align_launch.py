"""Learning from rewards on several processes by torchrun: the same answers, the same rewards, the same bytes after kills."""

import hashlib
import json
import random
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import tiny_policies
from launched_fits import WORKER, build_launch, fit_all, write_requests
from msgspec.structs import replace as changed
from tiny_policies import TERMS, fit_here, plan, policy_job
from vllm_stand_in import VllmStandIn

from tunectl.backends.launchers.torchrun_launcher import TorchrunLauncher
from tunectl.backends.modeling.process_group import ProcessGroup
from tunectl.backends.trainers.rollout_generation import RolloutGenerator
from tunectl.core.errors import UsageError
from tunectl.training import fit_request
from tunectl.training.rl.rl_types import RlResult

torch = pytest.importorskip("torch")
CHANCE = random.Random(3)
ANSWERS = {
    question.id: [
        [CHANCE.randint(65, 74) for _ in range(CHANCE.randint(1, 4))] + [2] * (copy != 3) for copy in range(4)
    ]
    for question in tiny_policies.DATA.prompts
}
"""Prompt to fixed answers; the last one of each is cut."""
SAMPLING_SEED = 6
"""Seed of the fits with sampled answers. Rounding moves log-probabilities by up to 7e-7, which can change a token: on a processor with AMX
it did with seed 5, on two ranks only."""


@pytest.fixture(scope="module")
def start(tiny_model, tmp_path_factory):
    return tiny_policies.build_policy(tiny_model, tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def reward(start, tmp_path_factory):
    return tiny_policies.build_reward(start, tmp_path_factory.mktemp("reward"))


def build_jobs(start, reward: Path, root: Path) -> dict:
    """Fits of a policy by name: sampled, with fixed answers, and with losses and advantages that are means over all answers of a step."""
    grpo = plan("grpo", rewards=TERMS, prompts_per_step=3, loss="dapo", scale_rewards="batch", beta=0.1, steps=4)
    bnpo = plan("grpo", rewards=TERMS, prompts_per_step=5, loss="bnpo", steps=2)
    terms = [*TERMS, tiny_policies.MODEL]
    chosen = {
        "rloo": (plan(rewards=terms, prompts_per_step=3, seed=SAMPLING_SEED), reward),
        "fixed": (plan(rewards=terms, prompts_per_step=3, normalize_advantages=True), reward),
        "grpo": (grpo, None),
        "bnpo": (bnpo, None),
        "dpo": (plan("dpo"), None, tiny_policies.PAIRS),
        "kto": (plan("kto"), None, tiny_policies.MARKS),
    }
    return {name: policy_job(start, root / name, *given) for name, given in chosen.items()}


@pytest.fixture(scope="module")
def vllm(start):
    """Two servers that write as vLLM does."""
    with VllmStandIn(start[0]) as one, VllmStandIn(start[0]) as two:
        yield one, two


@pytest.fixture(scope="module")
def both(start, reward, vllm, tmp_path_factory):
    """All fits on two ranks, in one pair of processes: name to job, result, and folder of the adapter; and what was logged.

    Besides those of ``build_jobs`` "servers": as "rloo", with answers of ``vllm``.
    """
    root = tmp_path_factory.mktemp("both")
    jobs = {name: (job, "none") for name, job in build_jobs(start, reward, root).items()}
    urls = {"mode": "server", "urls": [server.url for server in vllm], "api_key_env": None}
    chosen = plan(
        rewards=[*TERMS, tiny_policies.MODEL],
        prompts_per_step=3,
        seed=SAMPLING_SEED,
        vllm={**urls, "storage_path": None, "timeout_seconds": 60},
    )
    jobs["servers"] = policy_job(start, root / "servers", chosen, reward), "none"
    write_requests(root, jobs)
    (root / "fixed" / "launch" / "answers.json").write_text(json.dumps(ANSWERS))
    return fit_all(root, jobs, RlResult)


@pytest.fixture(scope="module")
def alone(start, reward, tmp_path_factory):
    """The same fits in this process: name to result and folder of the adapter."""
    found, root = {}, tmp_path_factory.mktemp("alone")
    for name, job in build_jobs(start, reward, root).items():
        with patch.object(RolloutGenerator, "sample_completions", RolloutGenerator.sample_completions):
            if name == "fixed":
                (root / "answers.json").write_text(json.dumps(ANSWERS))
                tiny_policies.take_answers_from(root / "answers.json")
            found[name] = (fit_here(job), job.out)
    return found


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def without_clock(result: RlResult) -> tuple:
    return [changed(point, seconds=0.0) for point in result.history], result.validation, result.samples


@pytest.mark.slow
def test_with_fixed_answers_two_ranks_are_rewarded_and_learn_as_one(both, alone):
    here, there = both[0]["fixed"][1], alone["fixed"][0]
    assert [point.completions_crc32 for point in here.history] == [point.completions_crc32 for point in there.history]
    for ours, theirs in zip(here.history, there.history, strict=True):
        assert ours.reward == pytest.approx(theirs.reward, abs=1e-6)
        assert ours.reward_spread == pytest.approx(theirs.reward_spread, abs=1e-6)
        assert (ours.length, ours.truncated) == (theirs.length, theirs.truncated)
        assert ours.loss == pytest.approx(theirs.loss, abs=1e-4)
        assert ours.kl == pytest.approx(theirs.kl, abs=1e-3)
    assert 0 < here.history[0].truncated < 1
    assert len({point.reward for point in here.history}) > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rloo", "grpo", "bnpo"])
def test_answers_of_the_first_step_are_the_same_on_two_ranks(both, alone, name):
    here, there = both[0][name][1], alone[name][0]
    first, other = here.history[0], there.history[0]
    assert first.completions_crc32 == other.completions_crc32
    assert first.reward == pytest.approx(other.reward, abs=1e-6)
    assert first.loss == pytest.approx(other.loss, abs=1e-5)
    assert here.validation[0].reward == pytest.approx(there.validation[0].reward, abs=1e-6)
    assert here.validation[0].metric == pytest.approx(there.validation[0].metric, abs=1e-6)
    assert here.answers == there.answers
    assert len({point.completions_crc32 for point in here.history}) == len(here.history)


@pytest.mark.slow
def test_with_fixed_answers_two_ranks_end_with_the_weights_of_one(both, alone):
    from safetensors.torch import load_file

    ours, theirs = (
        load_file(str(path / "adapter_model.safetensors")) for path in (both[0]["fixed"][2], alone["fixed"][1])
    )
    assert ours.keys() == theirs.keys()
    assert max(float((ours[key] - theirs[key]).abs().max()) for key in ours) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_two_ranks_learn_from_judgments_what_one_learns(both, alone, name):
    here, there = both[0][name][1], alone[name][0]
    assert (here.steps, here.answers, here.best_step) == (there.steps, there.answers, there.best_step)
    for ours, theirs in zip(here.history, there.history, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, abs=1e-4)
        assert ours.reward == pytest.approx(theirs.reward, abs=1e-3)
        assert ours.kl == (None if theirs.kl is None else pytest.approx(theirs.kl, abs=1e-3))
    for ours, theirs in zip(here.validation, there.validation, strict=True):
        assert ours.held_out_loss == pytest.approx(theirs.held_out_loss, abs=1e-4)
        assert ours.held_out_accuracy == theirs.held_out_accuracy
    assert here.history[0].loss == pytest.approx(there.history[0].loss, abs=1e-6)


@pytest.mark.slow
def test_two_ranks_learn_from_the_answers_of_servers_what_they_learn_from_their_own(both, vllm):
    with_servers, own = both[0]["servers"][1], both[0]["rloo"][1]
    assert [point.completions_crc32 for point in with_servers.history] == [
        point.completions_crc32 for point in own.history
    ]
    for ours, theirs in zip(with_servers.history, own.history, strict=True):
        assert ours.reward == pytest.approx(theirs.reward, abs=1e-6)
    assert all(server.asked and not server.adapters for server in vllm)
    assert vllm[0].loaded == vllm[1].loaded
    assert sum(body["n"] for server in vllm for body in server.asked if body["temperature"]) == own.answers


@pytest.mark.slow
def test_a_run_says_what_it_is_on(both):
    assert "align: 2 ranks on cpu, about 2 prompts a step each" in both[1]


@pytest.mark.slow
def test_killed_ranks_cost_nothing_but_time(both, start, reward, tmp_path):
    """Each rank is killed once, at a checkpoint and in a step: same bytes, looks and rewards as without."""
    job = policy_job(start, tmp_path, both[0]["rloo"][0].plan, reward)
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"kills": [[0, 0, "in_save"], [1, 1, "after_backward"]]}))
    end = TorchrunLauncher(build_launch(max_restarts=2), worker=(str(WORKER), str(script))).run(job)
    assert digest(job.out) == digest(both[0]["rloo"][2])
    assert without_clock(end.result) == without_clock(both[0]["rloo"][1])
    assert (end.ranks, end.nodes, end.device, end.restarts) == (2, 1, "cpu", 2)


@pytest.mark.parametrize(
    ("group", "changes", "message", "hint"),
    [
        (
            ProcessGroup(1, 4),
            {},
            "align: launch starts 4 ranks, and a step has 3 prompts: some ranks would have nothing to do",
            "start at most 3: launch.nproc_per_node=3, or raise align.prompts_per_step (now 3)",
        ),
        (
            ProcessGroup(0, 2, sharded=True),
            {},
            "align: launch.shard = layers, but answers are written with a merged copy of each layer",
            "set launch.shard=none for this stage",
        ),
        (
            ProcessGroup(0, 2),
            {"vllm": {"mode": "colocate", "gpu_memory_utilization": 0.3, "tensor_parallel_size": 1}},
            "align.vllm.mode is colocate, which works with one rank, but launch starts 2",
            "use vLLM servers (align.vllm.mode: server), write answers with transformers (align.vllm=null), or set launch=local",
        ),
    ],
)
def test_what_ranks_cannot_do_is_refused_by_name(start, tmp_path, group, changes, message, hint):
    with pytest.raises(UsageError) as error:
        fit_here(policy_job(start, tmp_path, **changes), group)
    assert (error.value.message, error.value.hint) == (message, hint)


def test_a_request_comes_back_as_it_was(start, tmp_path):
    job = policy_job(start, tmp_path)
    words = json.loads(json.dumps(fit_request.encode_plan(job.plan)))
    assert fit_request.decode_rl_plan(words) == job.plan
    fit_request.write_rows(tmp_path, job.train, job.validation)
    (data,), rest = fit_request.read_rows(tmp_path, type(job.train[0]))
    given = [[replace(prompt, tools=[]) for prompt in part] for part in (job.train[0].prompts, job.train[0].validation)]
    assert ([data.prompts, data.validation], rest) == (given, [])

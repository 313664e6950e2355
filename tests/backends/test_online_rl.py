"""Learning from rewards through TRL: a known reward rises, gradients are TRL's own, runs resume, and what goes wrong."""

import dataclasses
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_policies
from msgspec.structs import replace as changed
from tiny_policies import DATA, WANTED, plan, profile

from tunectl.artifacts import atomic_io
from tunectl.backends.modeling import training_checkpoint
from tunectl.backends.trainers import online_rl, online_trainer, rl_validation, rollout
from tunectl.backends.trainers.online_rl import OnlineRlTrainer
from tunectl.chat import model_spec
from tunectl.config.schema.align import Rloo
from tunectl.core.errors import ArtifactError, InfrastructureError, UsageError
from tunectl.training import resource_check
from tunectl.training.rl.rl_types import RewardBreakdown, RewardFunctions

torch = pytest.importorskip("torch")


def liked(ids):
    return 3 * (WANTED in ids) - 0.5 * len(ids)


class Likes:
    """Reward: the wanted token, and few words."""

    def __init__(self, value=None):
        self.value = value
        self.asked = 0

    def score(self, questions, answers, *, fixed=False):
        self.asked += 1
        if self.value is not None:
            return [self.value(self.asked, answer) for answer in answers]
        return [
            RewardBreakdown(liked(answer.ids), {"likes": liked(answer.ids)})
            if answer.finished
            else RewardBreakdown(math.nan, {})
            for answer in answers
        ]


class Steady:
    name = "chrf"

    def __call__(self, questions, answers):
        return np.ones((len(answers), 2))

    @staticmethod
    def combine(sums):
        return 50 * sums[..., 0] / sums[..., 1]


def judges(**changes):
    return RewardFunctions(changes.get("rewards", Likes()), changes.get("measure", Steady()))


@pytest.fixture(scope="module")
def start(tiny_model, tmp_path_factory):
    return tiny_policies.build_policy(tiny_model, tmp_path_factory.mktemp("policy"))


def fit(start, tmp_path, chosen=None, name="out", **changes):
    model, sft = start
    out = tmp_path / name
    out.mkdir(exist_ok=True)
    return OnlineRlTrainer().fit(
        chosen or plan(),
        model=model,
        sft=sft,
        data=changes.pop("data", DATA),
        judges=judges(**changes),
        out=out,
        work=tmp_path / f"{name}-work",
    )


def test_a_known_reward_rises(start, tmp_path):
    found = fit(start, tmp_path, plan(steps=40, prompts_per_step=4, validation={"eval_steps": 20}))
    first, last = found.history[:5], found.history[-5:]
    assert sum(point.reward for point in last) / 5 > sum(point.reward for point in first) / 5 + 1
    assert (found.steps, found.planned_steps, found.answers, found.stopped) == (40, 40, 640, None)
    assert [item.step for item in found.validation] == [0, 20, 40]
    assert found.validation[0].kl == pytest.approx(0, abs=1e-5)
    assert found.best_step == 40
    assert found.validation[-1].reward > found.validation[0].reward
    assert {sample.step for sample in found.samples} == {0, 20, 40}
    assert set(found.seconds) == {"generate", "reward", "reference", "learn", "validation"}


def gradient_of(model):
    return {name: weights.grad.clone() for name, weights in model.named_parameters() if weights.requires_grad}


def ours(start, tmp_path, chosen, *, move=0.0):
    """One step of ours without the optimizer: its gradients, its trainer, and the model."""
    model_folder, sft = start
    model, tokenizer = online_rl.load_policy(chosen, model_folder, sft)
    trainer = online_trainer.build_trainer(chosen, chosen.settings, model, tokenizer, tmp_path / "w")
    policy = online_rl.prepare_policy(chosen, model, tokenizer, DATA)
    shift(model, move)
    run = rollout.PolicyRun(
        chosen,
        chosen.settings,
        policy,
        DATA,
        judges(),
        [(0, 1)],
        rl_validation.RlTrainerState(),
        rollout.RolloutStep(0, []),
    )
    trainer.run = run
    trainer.current_gradient_accumulation_steps = 1
    trainer.create_optimizer_and_scheduler(1)
    model.zero_grad()
    loss = trainer.training_step(model, {"numbers": (0, 1)})
    return float(loss.detach()), gradient_of(model), run


def shift(model, move):
    """Move the policy away from sft, the same way each time."""
    random = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "lora_B.default" in name:
                weights.add_(move * torch.randn(weights.shape, generator=random))


def theirs(start, tmp_path, chosen, run, *, move=0.0):
    """The step of plain TRL on the answers of ``run``: its loss and gradients."""
    import datasets
    import trl
    from peft import PeftModel

    from tunectl.backends.modeling import model_loader
    from tunectl.backends.trainers.rl_args import to_rl_config

    model_folder, sft = start
    found = model_loader.load(model_folder, adapter=None, profile=chosen.profile)
    model = PeftModel.from_pretrained(found.model, sft, is_trainable=True)
    kind = trl.RLOOTrainer if isinstance(chosen.settings, Rloo) else trl.GRPOTrainer

    class Plain(kind):
        def _tokenize_prompts(self, prompts):
            return [list(asked.ids) for asked in run.turn.prompts], None, {}

        def _generate_single_turn(self, *args, **kwargs):
            ids = [list(line.answer) for line in run.turn.lines]
            return ids if kind is trl.RLOOTrainer else (ids, None)

    def reward(completion_ids, **kwargs):
        totals = [mark.total for mark in run.turn.rewards]
        return [None if math.isnan(total) else total for total in totals]

    trainer = Plain(
        model=model,
        reward_funcs=[reward],
        args=to_rl_config(chosen, chosen.settings, tmp_path / "t"),
        train_dataset=datasets.Dataset.from_list([{"prompt": ""}]),
        processing_class=found.tokenizer,
    )
    shift(model, move)
    trainer.current_gradient_accumulation_steps = 1
    model.train()
    batch = trainer._generate_and_score_completions([{"prompt": asked.text} for asked in run.turn.prompts])
    loss = trainer.compute_loss(model, batch)
    loss.backward()
    return float(loss.detach()), gradient_of(model)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("rloo", {}),
        ("rloo", {"normalize_advantages": True, "temperature": 0.7}),
        ("grpo", {"beta": 0.3}),
        ("grpo", {"loss": "dapo", "scale_rewards": "group"}),
        ("grpo", {"loss": "bnpo", "scale_rewards": "batch", "beta": 0.0}),
        ("grpo", {"loss": "grpo"}),
    ],
)
def test_our_step_has_the_gradient_of_plain_trl_on_the_same_answers(start, tmp_path, method, changes):
    chosen = plan(method, num_generations=24, max_new_tokens=4, machine=profile(train_batch_tokens=64), **changes)
    loss, grads, run = ours(start, tmp_path, chosen, move=0.02)
    assert len(rollout.split_micro_batches(run)) > 1
    cut = sum(not line.finished for line in run.turn.lines)
    assert 0 < cut < len(run.turn.lines)
    their_loss, their_grads = theirs(start, tmp_path, chosen, run, move=0.02)
    assert loss == pytest.approx(their_loss, abs=1e-4)
    assert grads.keys() == their_grads.keys()
    assert max(float(grad.abs().max()) for grad in grads.values()) > 1e-4
    for name, grad in grads.items():
        torch.testing.assert_close(grad, their_grads[name], rtol=2e-3, atol=1e-5)


def test_recomputed_activations_change_no_gradient(start, tmp_path):
    plain, usual, _ = ours(start, tmp_path, plan())
    saved, recomputed, _ = ours(start, tmp_path, plan(machine=profile(gradient_checkpointing=True)))
    assert saved == pytest.approx(plain, abs=1e-6)
    for name, grad in usual.items():
        torch.testing.assert_close(recomputed[name], grad)


def test_the_reference_is_what_a_second_adapter_would_say(start, tmp_path):
    from peft import PeftModel

    from tunectl.backends.modeling import model_loader

    chosen = plan(num_generations=6)
    _, _, run = ours(start, tmp_path, chosen, move=0.05)
    found = model_loader.load(start[0], adapter=None, profile=chosen.profile)
    model = PeftModel.from_pretrained(found.model, start[1])
    model.load_adapter(start[1], "ref")
    shift(model, 0.05)
    model.set_adapter("ref")
    for place, line in enumerate(run.turn.lines):
        ids = torch.tensor([[*line.ids, *line.answer]])
        with torch.no_grad():
            nats = model(input_ids=ids).logits[0].log_softmax(-1)
        expected = [
            float(nats[len(line.ids) + number - 1, token]) if line.finished else 0.0
            for number, token in enumerate(line.answer)
        ]
        torch.testing.assert_close(
            run.turn.reference[place, : len(expected)], torch.tensor(expected), rtol=1e-4, atol=1e-4
        )
    assert max(abs(value) for value in run.turn.kl) > 0.05


def test_writing_merged_says_what_the_adapter_says_and_leaves_the_weights_alone(start):
    chosen = plan()
    model, tokenizer = online_rl.load_policy(chosen, *start)
    before = {name: weights.clone() for name, weights in model.named_parameters()}
    policy = online_rl.prepare_policy(chosen, model, tokenizer, DATA)
    lines = policy.writer.sample_completions(
        DATA.prompts, 3, rollout.Sampling(method="sampling", max_new_tokens=6, temperature=0.8, top_p=1.0), range(6)
    )
    assert all(torch.equal(weights, before[name]) for name, weights in model.named_parameters())
    rows = [rl_validation.row_of(DATA.prompts[place // 3], [line.answer]) for place, line in enumerate(lines)]
    for line, nats in zip(lines, policy.likelihoods(rows, temperature=0.8), strict=True):
        assert line.nats == pytest.approx(nats.tolist(), abs=1e-4)
    assert [line.ids for line in lines] == [list(asked.ids) for asked in DATA.prompts for _ in range(3)]
    assert len({tuple(line.answer) for line in lines[:3]}) > 1


def test_cut_answers_get_no_reward_no_gradient_and_no_say_in_the_baseline(start, tmp_path):
    chosen = plan(num_generations=6, max_new_tokens=3)
    _, grads, run = ours(start, tmp_path, chosen)
    cut = [place for place, line in enumerate(run.turn.lines) if not line.finished]
    assert 0 < len(cut) < len(run.turn.lines)
    assert all(math.isnan(run.turn.rewards[place].total) for place in cut)
    assert not {place for part in rollout.split_micro_batches(run) for place in part.indices} & set(cut)
    point = run.state.history[-1]
    assert point.truncated == pytest.approx(len(cut) / len(run.turn.lines))
    assert math.isfinite(point.reward)
    assert all(torch.isfinite(grad).all() for grad in grads.values())


def digest(folder):
    return {path.name: atomic_io.sha256_path(path) for path in sorted(folder.iterdir())}


def without_clock(found):
    return (
        [changed(point, seconds=0.0) for point in found.history],
        found.validation,
        found.samples,
        found.best_step,
        found.answers,
    )


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """An uninterrupted run, to compare with."""
    folder = tmp_path_factory.mktemp("whole")
    found = fit(start, folder, plan())
    return digest(folder / "out"), without_clock(found)


class Killed(BaseException):
    """Ends a run as a kill would: nothing after it is done."""


@pytest.mark.parametrize("call", [5, 9])
def test_a_killed_run_goes_on_to_the_same_bytes(start, tmp_path, whole, call):
    class Dies(Likes):
        def score(self, questions, answers, *, fixed=False):
            if self.asked == call:
                raise Killed
            return super().score(questions, answers, fixed=fixed)

    with pytest.raises(Killed):
        fit(start, tmp_path, rewards=Dies())
    assert [path.name for path in (tmp_path / "out-work").glob("checkpoint-*")] == [
        f"checkpoint-{3 if call == 5 else 6}"
    ]
    found = fit(start, tmp_path)
    assert digest(tmp_path / "out") == whole[0]
    assert without_clock(found) == whole[1]
    assert set(whole[0]) == {"adapter_config.json", "adapter_model.safetensors"}


CHILD = """
import sys
sys.path[:0] = [{tests!r}, {support!r}]
from pathlib import Path
import test_online_rl as t
t.fit((Path({model!r}), Path({sft!r})), Path({root!r}), t.plan(steps={steps}, save_steps=1))
"""


def test_kill_9_at_any_moment_changes_nothing(start, tmp_path):
    """Killed twice, once as soon as there is a checkpoint and once at a random moment after that."""
    steps = 40
    text = CHILD.format(
        tests=str(Path(__file__).parent),
        support=str(Path(tiny_policies.__file__).parent),
        model=str(start[0]),
        sft=str(start[1]),
        root=str(tmp_path),
        steps=steps,
    )
    work, marker, reached = tmp_path / "out-work", training_checkpoint.MARKER, 0
    for wait in (0.0, random.random()):
        process = subprocess.Popen(
            [sys.executable, "-c", text], env={**os.environ, "HF_HUB_OFFLINE": "1"}, stderr=subprocess.PIPE, text=True
        )
        until = time.monotonic() + 90
        while not [path for path in work.glob(f"checkpoint-*/{marker}") if step_of(path.parent) > reached]:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
        process.stderr.close()
        before, reached = reached, step_of(training_checkpoint.latest_checkpoint(work))
        assert before < reached < steps
    chosen = plan(steps=steps, save_steps=1)
    resumed, whole = fit(start, tmp_path, chosen), fit(start, tmp_path, chosen, name="whole")
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")
    assert without_clock(resumed) == without_clock(whole)
    (tmp_path / "out/adapter_model.safetensors").unlink()  # killed after the last step, before the result was whole
    again = fit(start, tmp_path, chosen)
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")
    assert without_clock(again) == without_clock(whole)


def step_of(folder):
    return int(folder.name.rpartition("-")[2])


def test_the_same_run_gives_the_same_bytes_and_another_seed_gives_others(start, tmp_path, whole):
    fit(start, tmp_path)
    fit(start, tmp_path, plan(seed=6), name="other")
    assert digest(tmp_path / "out") == whole[0]
    assert digest(tmp_path / "other") != whole[0]


def test_ctrl_c_finishes_the_step_and_the_same_command_goes_on(start, tmp_path, whole):
    class Pressed(Likes):
        def score(self, questions, answers, *, fixed=False):
            if self.asked == 4:
                os.kill(os.getpid(), signal.SIGINT)
            return super().score(questions, answers, fixed=fixed)

    with pytest.raises(InfrastructureError) as caught:
        fit(start, tmp_path, rewards=Pressed())
    assert caught.value.message == "align stopped at step 4 of 8; its state is kept"
    assert caught.value.hint == "run the same command again to resume"
    found = fit(start, tmp_path)
    assert digest(tmp_path / "out") == whole[0]
    assert without_clock(found) == whole[1]


def test_the_adapter_is_a_drop_in_for_that_of_sft(start, tmp_path):
    from tunectl.backends.modeling import model_loader

    fit(start, tmp_path)
    own, its = (atomic_io.read_json(folder / "adapter_config.json", dict) for folder in (tmp_path / "out", start[1]))
    assert own == its | {"inference_mode": own["inference_mode"]}
    assert model_loader.load(start[0], adapter=tmp_path / "out", profile=profile()).model is not None


class Falls(Steady):
    """Worse at every look."""

    def __init__(self):
        self.looks = 0

    def __call__(self, questions, answers):
        self.looks += 1
        return np.asarray([(1.0 - 0.2 * self.looks, 1.0)] * len(answers))


def test_reward_hacking_stops_the_run_and_returns_the_sft_weights(start, tmp_path, caplog):
    class Inflated(Likes):
        def score(self, questions, answers, *, fixed=False):
            marks = super().score(questions, answers, fixed=fixed)
            return [RewardBreakdown(mark.total + self.asked, mark.parts) for mark in marks]

    chosen = plan(validation={"tolerance": 2.0})
    data = dataclasses.replace(DATA, validation=DATA.prompts[:6])  # fewer have no interval
    found = fit(start, tmp_path, chosen, data=data, rewards=Inflated(), measure=Falls())
    assert (found.steps, found.planned_steps, found.best_step) == (4, 8, 0)
    assert found.stopped is not None
    assert "while chrf had fallen by 10.0 points" in found.stopped
    assert found.stopped in caplog.text
    files = pytest.importorskip("safetensors.torch")
    name = "adapter_model.safetensors"
    own, its = (files.load_file(str(folder / name)) for folder in (tmp_path / "out", start[1]))
    assert all(torch.equal(own[key], its[key]) for key in its)


def fails(start, tmp_path, chosen=None, **changes):
    with pytest.raises((UsageError, ArtifactError, InfrastructureError)) as caught:
        fit(start, tmp_path, chosen, **changes)
    return caught.value


def test_every_answer_cut(start, tmp_path):
    error = fails(start, tmp_path, plan(max_new_tokens=1, temperature=0.01))
    assert error.message == "align: all 4 answers of step 0 were cut at 1 tokens, so none could be rewarded"
    assert error.hint == "raise align.max_new_tokens (now 1)"


def test_a_policy_that_runs_away(start, tmp_path):
    error = fails(start, tmp_path, plan(max_kl=0.01, learning_rate=0.05))
    assert error.message.startswith("align: KL explosion at step ")
    assert ": the mean KL divergence of answers from sft is " in error.message
    assert error.message.endswith(" nats; the limit is 0.01 (align.max_kl)")
    assert error.hint == "lower align.learning_rate (now 0.05) or raise align.beta (now 0.05)"


def test_a_reward_that_is_no_number_names_step_and_answer(start, tmp_path):
    def broken(asked, answer):
        return RewardBreakdown(math.nan if asked == 3 else 1.0, {"reward_model": math.nan, "length": -1.0})

    error = fails(start, tmp_path, rewards=Likes(broken))
    assert error.message.startswith(
        "align: the reward of an answer of step 2 is not a number (reward_model nan, length -1); to 'Say "
    )
    assert error.hint.startswith("check the part of the reward that is nan or inf")


def test_a_reward_model_that_fails_names_the_step(start, tmp_path):
    class Broken(Likes):
        def score(self, questions, answers, *, fixed=False):
            if self.asked == 2:
                raise ArtifactError("members/0: the reward of an answer is nan", hint="rebuild it")
            return super().score(questions, answers, fixed=fixed)

    error = fails(start, tmp_path, rewards=Broken())
    assert (error.message, error.hint) == (
        "align: step 2: members/0: the reward of an answer is nan",
        "rebuild it",
    )


def test_an_adapter_of_another_base(start, tmp_path):
    model, sft = start
    other = tmp_path / "sft"
    shutil.copytree(sft, other)
    model_spec.save(changed(model_spec.load(sft), weights_sha256="0" * 64), other)
    error = fails((model, other), tmp_path)
    assert error.message.startswith(f"{other} does not fit {model}: it was trained with the weights 000000000000…")


def test_vllm_without_a_card_or_absent(start, tmp_path):
    vllm = {"mode": "colocate", "gpu_memory_utilization": 0.3, "tensor_parallel_size": 1}
    error = fails(start, tmp_path, plan(vllm=vllm))
    assert error.message == (
        "align.vllm.mode is colocate: vLLM shares a GPU with the trainer, and hardware.device is cpu"
    )
    assert error.hint == "write answers with transformers: align.vllm=null, or use a GPU: hardware=gpu"
    error = fails(start, tmp_path, plan(vllm={**vllm, "tensor_parallel_size": 2}, machine=profile(device="cuda")))
    assert error.message == (
        "align.vllm.tensor_parallel_size = 2: TRL divides a model over ranks, and colocate works with one rank"
    )
    error = fails(start, tmp_path, plan(vllm=vllm, machine=profile(device="cuda")))
    assert error.message == "align.vllm.mode is colocate, but vllm is not installed"


def test_out_of_memory_says_what_to_lower(start, tmp_path, monkeypatch):
    def fail(*_args, **_kwargs):
        raise MemoryError

    monkeypatch.setattr(rollout, "generate_completions", fail)
    error = fails(start, tmp_path)
    assert error.message == "align ran out of memory: no more to allocate"
    assert error.hint == (
        "lower hardware.train_batch_tokens (now 256), hardware.generate_batch (now 16) or align.max_new_tokens (now 16)"
    )


def test_too_little_memory_or_disk_is_said_before_anything_is_written(start, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(resource_check, "available_memory", lambda: 2_000_000)
        error = fails(start, tmp_path)
    assert re.fullmatch(r"training needs about \d+ MB of memory, and 2 MB are free", error.message)
    assert error.hint == (
        "lower hardware.train_batch_tokens (now 256), hardware.generate_batch (now 16) or align.max_new_tokens (now 16)"
    )
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=7_000_000))
        error = fails(start, tmp_path)
    work = tmp_path / "out-work"
    assert error.message == f"{work} needs 50 MB for checkpoints, and 7 MB are free on its disk"
    assert not work.exists()


@pytest.mark.parametrize("beta", [0.0, 0.2])
def test_grpo_learns_too_and_its_drift_is_always_measured(start, tmp_path, beta):
    found = fit(start, tmp_path, plan("grpo", steps=4, beta=beta))
    assert found.steps == 4
    assert found.history[0].kl == pytest.approx(0, abs=1e-4)
    assert abs(found.history[-1].kl) > 1e-3


def test_a_pull_to_sft_holds_the_policy(start, tmp_path):
    free = fit(start, tmp_path, plan(steps=24, beta=0.0), name="free")
    held = fit(start, tmp_path, plan(steps=24, beta=5.0), name="held")
    assert abs(held.validation[-1].kl) < abs(free.validation[-1].kl)

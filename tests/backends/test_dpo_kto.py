"""Learning from judgments through TRL: its own losses and gradients, what is read once, resuming, and what goes wrong."""

import hashlib
import os
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
from tiny_policies import judged, marked, prompt_of

from tunectl.artifacts.records import Message
from tunectl.backends.modeling import model_loader, peft_adapter, training_checkpoint
from tunectl.backends.trainers import dpo_kto, offline_logprobs, offline_run, online_rl, rl_args
from tunectl.backends.trainers.dpo_kto import DpoKtoTrainer
from tunectl.backends.trainers.rl_checkpoint import RlTrainerState
from tunectl.chat import model_spec
from tunectl.config.schema.align import Dpo, Kto
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.training import resource_check
from tunectl.training.rl.rl_types import PolicyData, Prompt, RewardFunctions, RlArgs

torch = pytest.importorskip("torch")


def profile(**changes):
    values = {
        "device": "cpu",
        "threads": 1,
        "dtype": "float32",
        "train_batch_tokens": 64,
        "generate_batch": 8,
        "gradient_checkpointing": False,
    }
    return HardwareProfile(**{**values, **changes})


def plan(method="dpo", *, machine=None, seed=3, **changes):
    watch = {
        "eval_steps": 4,
        "inputs": 4,
        "metric": {"method": "score", "name": "chrf"},
        "tolerance": 100.0,
        "confidence": 0.9,
        "resamples": 100,
        "samples": 2,
    }
    values = {
        "method": method,
        "learning_rate": 5e-3,
        "lr_scheduler": "constant",
        "warmup_ratio": 0.0,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "save_steps": 2,
        "validation": watch | changes.pop("validation", {}),
        "epochs": 2,
        "max_length": 64,
        "max_rejected_share": 0.1,
        "max_new_tokens": 8,
        "beta": 0.2,
    }
    own = {
        "dpo": {"loss": "sigmoid", "label_smoothing": 0.0, "ld_alpha": None, "batch_size": 8},
        "kto": {"desirable_weight": 1.0, "undesirable_weight": 1.5, "batch_size": 16},
    }[method]
    kind = {"dpo": Dpo, "kto": Kto}[method]
    return RlArgs(kind.model_validate({**values, **own, **changes}), seed, machine or profile(), "test")


def question(number):
    ids = tuple(prompt_of(number))
    return Prompt(f"q{number}", (Message("user", f"Say {number}"),), f"prompt {number}", ids, ("reference",), {})


class Steady:
    """A measure that never moves."""

    name = "chrf"

    def __call__(self, questions, answers):
        return np.ones((len(answers), 2))

    @staticmethod
    def combine(sums):
        return 50 * sums[..., 0] / sums[..., 1]


def data(method="dpo", *, held_out=True, count=32, watched=4):
    made = {"dpo": judged, "kto": marked}[method]
    questions = [question(number) for number in range(count, count + watched)]
    return PolicyData((), made(count), made(6, count) if held_out else (), questions)


@pytest.fixture(scope="module")
def base(tiny_model, tmp_path_factory):
    """A model that answers with a few letters and ends its turn."""
    folder = tmp_path_factory.mktemp("pairs") / "model"
    shutil.copytree(tiny_model, folder)
    torch.manual_seed(1)
    model = model_loader.load(folder, adapter=None, profile=profile()).model
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    ids = torch.tensor([[*prompt_of(number), 60 + number, 60 + number // 2, 2] for number in range(20)])
    labels = ids.clone()
    labels[:, :4] = -100
    for _ in range(60):
        optimizer.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
    pytest.importorskip("safetensors.torch").save_model(
        model, str(folder / "model.safetensors"), metadata={"format": "pt"}
    )
    return folder


@pytest.fixture(scope="module")
def sft(base, tmp_path_factory):
    """An adapter on it that changes little."""
    peft = pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("pairs") / "sft"
    torch.manual_seed(2)
    model = peft.get_peft_model(
        model_loader.load(base, adapter=None, profile=profile()).model,
        peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear"),
    )
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "lora_B" in name:
                weights.normal_(0, 0.005)
    peft_adapter.save_adapter(model, {}, folder, model_spec.load(base))
    model_spec.save(model_spec.load(base), folder)
    return folder


def fit(model, sft, root, chosen=None, name="out", **changes):
    chosen = chosen or plan()
    return DpoKtoTrainer().fit(
        chosen,
        model=model,
        sft=sft,
        data=changes.get("data", data(chosen.settings.method)),
        judges=RewardFunctions(None, Steady()),
        out=root / name,
        work=root / f"{name}-work",
    )


def digest(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def moved(model):
    """Make the policy another one than sft."""
    torch.manual_seed(8)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "lora_B.default" in name:
                weights.add_(torch.randn_like(weights) * 0.05)


def ours(base, sft, chosen, given, work):
    """Loss and gradients of the first step as the product takes them, and the step."""
    peft_model, tokenizer = online_rl.load_policy(chosen, base, sft)
    steps = dpo_kto._steps(chosen, chosen.settings, given.judged)
    trainer = dpo_kto.build_trainer(chosen, chosen.settings, peft_model, tokenizer, len(steps), work)
    policy = online_rl.prepare_policy(chosen, peft_model, tokenizer, given)
    trainer.run = offline_run.prepare_run(
        chosen, policy, given, RewardFunctions(None, Steady()), steps, RlTrainerState(), work
    )
    moved(peft_model)
    peft_model.train()
    loss, _, _ = trainer._learn(steps[0], 1)
    return loss, {name: p.grad for name, p in peft_model.named_parameters() if p.requires_grad}, steps[0]


def theirs(base, sft, chosen, examples, work):
    """The same by TRL alone: padded token ids, a second adapter as reference, whole logits."""
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    peft_model, tokenizer = online_rl.load_policy(chosen, base, sft)
    name = {"dpo": "DPOTrainer", "kto": "KTOTrainer"}[chosen.settings.method]
    plain = type(name, (getattr(trl, name),), {"_prepare_dataset": lambda self, dataset, *_: dataset})
    trainer = plain(
        model=peft_model,
        args=rl_args.to_preference_config(chosen, chosen.settings, 1, work),
        train_dataset=datasets.Dataset.from_list(examples),
        processing_class=tokenizer,
    )
    moved(peft_model)
    peft_model.train()
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(examples))
    loss.backward()
    return loss.item(), {name: p.grad for name, p in peft_model.named_parameters() if p.requires_grad}


def same(one, other):
    assert one[0] == pytest.approx(other[0], rel=1e-4)
    assert set(one[1]) == set(other[1])
    for name, gradient in other[1].items():
        torch.testing.assert_close(one[1][name], gradient, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ld_alpha": 0.3},
        {"loss": "robust", "label_smoothing": 0.2},
        {"loss": "ipo"},
        {"loss": "hinge"},
    ],
    ids=str,
)
def test_dpo_has_the_loss_and_the_gradients_of_trl(base, sft, tmp_path, changes):
    chosen, given = plan(**changes), data()
    loss, gradients, step = ours(base, sft, chosen, given, tmp_path / "ours")
    assert len(step.batches) > 1  # micro-batches, of which TRL knows nothing
    examples = [
        {
            "prompt_ids": row.prompt.ids,
            "chosen_ids": row.branches[0].ids,
            "rejected_ids": row.branches[1].ids,
        }
        for row in (given.judged[number].row for number in offline_run.row_indices(step))
    ]
    same((loss, gradients), theirs(base, sft, chosen, examples, tmp_path / "theirs"))


def test_kto_has_the_loss_and_the_gradients_of_trl(base, sft, tmp_path):
    chosen, given = plan("kto"), data("kto")
    loss, gradients, step = ours(base, sft, chosen, given, tmp_path / "ours")
    assert len(step.batches) > 1
    judgments = [given.judged[number] for number in offline_run.row_indices(step)]
    examples = []
    for number, item in enumerate(judgments):
        for side, branch in enumerate(item.row.branches):
            strangers = judgments[number - 1].row.branches
            examples.append(
                {
                    "prompt_ids": item.row.prompt.ids,
                    "completion_ids": branch.ids,
                    "label": item.good[side],
                    "stranger": strangers[side].ids if side < len(strangers) else None,
                }
            )
    # TRL has one stranger an answer, we have the answers of the row before; both are all answers of the step once
    behind = [
        (item.row.prompt.ids, branch.ids)
        for number, item in enumerate(judgments)
        for branch in judgments[number - 1].row.branches
    ]
    assert len(behind) == len(examples)
    collated = [
        {**{key: value for key, value in one.items() if key != "stranger"}, "KL_completion_ids": ids}
        for one, (_, ids) in zip(examples, behind, strict=True)
    ]
    trl = pytest.importorskip("trl")
    own = trl.trainer.kto_trainer.DataCollatorForUnpairedPreference.torch_call

    def collate(self, lines):
        batch = own(self, lines)
        apart = own(self, [{**line, "prompt_ids": asked} for line, (asked, _) in zip(lines, behind, strict=True)])
        return batch | {key: value for key, value in apart.items() if key.startswith("KL_")}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trl.trainer.kto_trainer.DataCollatorForUnpairedPreference, "torch_call", collate)
        found = theirs(base, sft, chosen, collated, tmp_path / "theirs")
    same((loss, gradients), found)


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_it_learns_what_people_prefer_and_the_same_seed_gives_the_same_bytes(base, sft, tmp_path, method):
    chosen = plan(method, epochs=3, learning_rate=0.01)
    found = fit(base, sft, tmp_path, chosen, "first")
    fit(base, sft, tmp_path, chosen, "second")
    assert digest(tmp_path / "first") == digest(tmp_path / "second")
    assert sorted(digest(tmp_path / "first")) == ["adapter_config.json", "adapter_model.safetensors"]
    first, last = found.validation[0], found.validation[-1]
    assert last.held_out_loss < first.held_out_loss - 0.05
    assert first.reward == first.kl == 0
    assert (last.held_out_accuracy > 0.8) if method == "dpo" else (last.held_out_accuracy is None)
    assert found.history[-1].reward > found.history[0].reward
    assert found.steps == found.planned_steps == len(found.history)
    assert all((point.kl is None) == (method == "dpo") for point in found.history)
    assert found.answers == 3 * sum(len(item.good) for item in data(method).judged)
    assert set(found.seconds) == {"learn", "reference", "validation"}
    assert found.best_step == min(found.validation, key=lambda look: look.held_out_loss).step
    again = model_loader.load(base, adapter=tmp_path / "first", profile=profile())
    assert again.model.active_adapters == ["default"]


def test_pairs_are_a_good_and_a_bad_answer_each_for_kto(base, sft, tmp_path):
    found = fit(base, sft, tmp_path, plan("kto", epochs=3, learning_rate=0.01), data=data("dpo"))
    assert found.validation[-1].held_out_accuracy > 0.8
    assert found.history[-1].reward > 0


def test_settings_reach_the_fit(base, sft, tmp_path):
    usual = fit(base, sft, tmp_path, plan(epochs=1))
    for number, chosen in enumerate(
        (
            plan(epochs=1, beta=2.0),
            plan(epochs=1, learning_rate=1e-3),
            plan(epochs=1, weight_decay=0.5, max_grad_norm=None),
            plan(epochs=1, batch_size=2),
        )
    ):
        assert fit(base, sft, tmp_path, chosen, f"other{number}").history != usual.history


def test_bfloat16_and_checkpointing_learn_too(base, sft, tmp_path):
    for name, machine in (("low", profile(dtype="bfloat16")), ("spare", profile(gradient_checkpointing=True))):
        found = fit(base, sft, tmp_path, plan(machine=machine), name)
        assert found.validation[-1].held_out_loss < found.validation[0].held_out_loss


def test_what_sft_says_is_read_once(base, sft, tmp_path, monkeypatch):
    own, read = offline_logprobs.LogprobReader.compute_without_grad, []
    monkeypatch.setattr(
        offline_logprobs.LogprobReader,
        "compute_without_grad",
        lambda self, rows, label=None: read.append(label) or own(self, rows, label),
    )
    fit(base, sft, tmp_path)
    assert read == ["sft: train", "sft: held out"]
    fit(base, sft, tmp_path, name="out")  # the work folder holds them
    assert read == ["sft: train", "sft: held out"]


CHILD = """
import sys
sys.path[:0] = {folders!r}
from pathlib import Path
import test_dpo_kto as t
t.fit(Path({model!r}), Path({sft!r}), Path({root!r}), t.plan({method!r}, epochs=12, validation={{"eval_steps": 16}}))
"""


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_a_killed_fit_goes_on_and_ends_with_the_same_bytes(base, sft, tmp_path, method):
    chosen = plan(method, epochs=12, validation={"eval_steps": 16})
    whole = fit(base, sft, tmp_path, chosen, "whole")
    text = CHILD.format(
        folders=[str(Path(__file__).parent), str(Path(tiny_policies.__file__).parent)],
        model=str(base),
        sft=str(sft),
        root=str(tmp_path),
        method=method,
    )
    process = subprocess.Popen(
        [sys.executable, "-c", text], env={**os.environ, "HF_HUB_OFFLINE": "1"}, stderr=subprocess.PIPE, text=True
    )
    work, until = tmp_path / "out-work", time.monotonic() + 90
    while not list(work.glob(f"checkpoint-*/{training_checkpoint.MARKER}")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert not (tmp_path / "out").exists()
    step = int(training_checkpoint.latest_checkpoint(work).name.rpartition("-")[2])
    resumed = fit(base, sft, tmp_path, chosen)
    assert 0 < step < resumed.steps == whole.steps
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")
    assert [(p.step, p.loss, p.reward) for p in resumed.history] == [(p.step, p.loss, p.reward) for p in whole.history]
    assert resumed.validation == whole.validation
    assert resumed.samples == whole.samples


def test_a_fit_killed_after_its_last_step_gives_the_same_again(base, sft, tmp_path):
    whole = fit(base, sft, tmp_path, plan(save_steps=1), "whole")
    (tmp_path / "whole-work").rename(tmp_path / "out-work")
    again = fit(base, sft, tmp_path, plan(save_steps=1))
    assert (again.steps, again.history, again.validation, again.samples) == (
        whole.steps,
        whole.history,
        whole.validation,
        whole.samples,
    )
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_too_little_memory_or_disk_is_said_before_anything_is_written(base, sft, tmp_path, monkeypatch, method):
    def fails():
        with pytest.raises(InfrastructureError) as caught:
            fit(base, sft, tmp_path, plan(method))
        return caught.value

    with monkeypatch.context() as patch:
        patch.setattr(resource_check, "available_memory", lambda: 1_000_000)
        error = fails()
    assert re.fullmatch(r"training needs about \d+ MB of memory, and 1 MB are free", error.message)
    assert error.hint == (
        "lower hardware.train_batch_tokens (now 64), hardware.generate_batch (now 8) or align.max_length (now 64)"
    )
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=7_000_000))
    work = tmp_path / "out-work"
    assert fails().message == f"{work} needs 50 MB for checkpoints, and 7 MB are free on its disk"
    assert not work.exists()


def test_ctrl_c_stops_cleanly_and_the_same_call_goes_on(base, sft, tmp_path, monkeypatch):
    whole = fit(base, sft, tmp_path, name="whole")
    own, calls = dpo_kto.OfflineTrainerMixin._learn, []

    def learn(self, step, number):
        calls.append(number)
        if number == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return own(self, step, number)

    with monkeypatch.context() as patch:
        patch.setattr(dpo_kto.OfflineTrainerMixin, "_learn", learn)
        with pytest.raises(InfrastructureError) as caught:
            fit(base, sft, tmp_path)
    assert caught.value.message == "align stopped at step 3 of 8; its state is kept"
    assert caught.value.hint == "run the same command again to resume"
    assert fit(base, sft, tmp_path).validation == whole.validation
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_a_loss_that_is_no_number_is_named(base, sft, tmp_path, monkeypatch, method):
    own, calls = offline_logprobs.answer_logps, []

    def breaks(route, rows, **options):
        found = own(route, rows, **options)
        calls.append(found.values.requires_grad)
        return found._replace(values=found.values * float("nan")) if sum(calls) > 8 else found

    monkeypatch.setattr(offline_logprobs, "answer_logps", breaks)
    with pytest.raises(UsageError) as caught:
        fit(base, sft, tmp_path, plan(method))
    start = caught.value.message.partition(";")[0]
    assert start in {f"align: the loss is nan at step {step}" for step in range(2, 6)}
    assert "the last good loss was 0." in caught.value.message
    assert caught.value.hint == "lower align.learning_rate (now 0.005), or align.max_grad_norm (now 1)"
    assert not (tmp_path / "out").exists()


def test_a_measure_that_falls_stops_it_and_gives_back_sft(base, sft, tmp_path):
    class Falls(Steady):
        """Sees no right answer once the policy has moved."""

        def __init__(self):
            self.looks = 0

        def __call__(self, questions, answers):
            self.looks += 1
            return np.array([[2.0 / self.looks + 0.01 * place, 2.0] for place in range(len(answers))])

    found = DpoKtoTrainer().fit(
        plan(validation={"tolerance": 1.0}, epochs=6),
        model=base,
        sft=sft,
        data=data(watched=6),  # fewer have no interval
        judges=RewardFunctions(None, Falls()),
        out=tmp_path / "out",
        work=tmp_path / "work",
    )
    assert found.steps == 4 < found.planned_steps
    assert found.best_step == 0
    assert found.stopped.startswith("at step 4 chrf had fallen by 25.0 points (interval ")
    assert found.stopped.endswith("; align.validation.tolerance allows 1")
    theirs_, ours_ = (
        model_loader.load(base, adapter=folder, profile=profile()).model.state_dict()
        for folder in (sft, tmp_path / "out")
    )
    assert all(torch.equal(value, ours_[name]) for name, value in theirs_.items())

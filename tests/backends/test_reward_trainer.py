"""Reward models through TRL: equal to its plain way, equal bytes, resuming after a kill, scoring, and what goes wrong."""

import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest

from tunectl.artifacts import atomic_io
from tunectl.artifacts.records import AnnotationMetadata, Message, PreferencePair, Source
from tunectl.artifacts.row_counts import RowCounter
from tunectl.backends.modeling import model_loader, reward_forward, reward_scorer, training_checkpoint, training_run
from tunectl.backends.trainers import trainer_loop
from tunectl.backends.trainers.reward_trainer import RewardModelTrainer
from tunectl.chat import model_spec, template
from tunectl.chat.loss_mask import LossMasker
from tunectl.chat.tokenizer import Tokenizer
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.core.errors import ArtifactError, InfrastructureError, UsageError
from tunectl.training.reward import pair_batches
from tunectl.training.reward.pair_batches import split_answers
from tunectl.training.reward.protocols import ScoredPrompt
from tunectl.training.reward.reward_args import RewardArgs
from tunectl.training.reward.reward_artifacts import Ensemble, RewardFacts
from tunectl.training.train_args import LoraArgs, TrainingArgs

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")


def profile(**changes):
    values = {
        "device": "cpu",
        "threads": 1,
        "dtype": "float32",
        "train_batch_tokens": 256,
        "generate_batch": 4,
        "gradient_checkpointing": False,
    }
    return HardwareProfile(**{**values, **changes})


def plan(center_rewards_coefficient=None, **changes):
    standard = TrainingArgs(
        label="reward",
        adapter=LoraArgs("lora", 4, 8, 0.0, "all-linear"),
        epochs=2,
        batch_size=8,
        optimizer="adamw",
        learning_rate=5e-3,
        lr_scheduler="linear",
        warmup_ratio=0.1,
        weight_decay=0.0,
        max_grad_norm=1.0,
        label_smoothing=0.0,
        neftune_noise_alpha=None,
        ema_decay=None,
        prefix_sharing=True,
        evals_per_epoch=2,
        patience=None,
        min_delta=0.0,
        save_steps=3,
        seed=5,
        project="test",
        profile=profile(),
    )
    return RewardArgs(replace(standard, **changes), center_rewards_coefficient)


@pytest.fixture(scope="module")
def sft(tiny_model, tmp_path_factory):
    """An adapter that does something, with its contract."""
    folder = tmp_path_factory.mktemp("sft") / "sft"
    torch.manual_seed(11)
    model = model_loader.load(tiny_model, adapter=None, profile=profile()).model
    settings = peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    peft.get_peft_model(model, settings).save_pretrained(folder)
    model_spec.save(model_spec.load(tiny_model), folder)
    return folder


def pair(number, chosen, rejected, prompt="Say it", margin=None):
    return PreferencePair(
        f"p{number}",
        prompt,
        [Message("user", prompt)],
        [Message("assistant", chosen)],
        [Message("assistant", rejected)],
        [AnnotationMetadata(Source("f", number))],
        margin,
    )


def pairs(count=12, start=0):
    """Yes is better than no, whatever is asked."""
    return [
        pair(number, f"yes {number % 5}", f"no {number % 3}", f"Question {chr(97 + number % 20)}?")
        for number in range(start, start + count)
    ]


def compared(model, some):
    masker = LossMasker(template.load(model), Tokenizer(model), end_of_turn=2, train_on="answer")
    return pair_batches.tokenize_pairs(some, masker, max_tokens=400, tally=RowCounter("reward"))


def bundles(model, some, **how):
    return pair_batches.group_pairs(compared(model, some), **{"share": True, "margins": False, **how})


def fit(model, sft, tmp_path, chosen, name="out", **changes):
    given = {"train": bundles(model, pairs()), "validation": bundles(model, pairs(6, 40)), **changes}
    return RewardModelTrainer().fit(
        chosen, model=model, sft=sft, out=tmp_path / name, work=tmp_path / f"work-{name}", **given
    )


def digest(folder: Path):
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def plain(model, sft):
    """The same weights as transformers and peft have them: merged, then one output; rows of their own, no pad token."""
    transformers = pytest.importorskip("transformers")
    merged = model_loader.load(model, adapter=sft, profile=profile()).model.merge_and_unload()
    merged.config.num_labels = 1
    found = transformers.AutoModelForSequenceClassification.from_config(merged.config)
    found.model.load_state_dict(merged.model.state_dict())
    found.score.weight.data = reward_forward.build(model, sft, profile(), seed=5).model.score.weight.data
    found.config.pad_token_id = 0  # never said here; the end of turn would be taken for padding
    return found.eval()


def test_rewards_are_the_logits_of_transformers(tiny_model, sft):
    items = compared(tiny_model, pairs(4))
    found = reward_forward.build(tiny_model, sft, profile(), seed=5).model
    some = pair_batches.group_pairs(items, share=True, margins=False)
    with torch.no_grad():
        ours = reward_forward.rewards_of(
            reward_forward.route_of(found, autocast=False), [row for bundle in some for row in bundle.rows]
        )
        whole = [side for item in items for side in (item.chosen, item.rejected)]
        theirs = torch.stack([plain(tiny_model, sft)(input_ids=torch.tensor([one])).logits[0, 0] for one in whole])
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert float(theirs.std()) > 1e-3


def test_the_loss_is_that_of_plain_trl_with_margins_and_centering(tiny_model, sft):
    trl = pytest.importorskip("trl")
    items = compared(tiny_model, [replace_margin(one, 0.5 + number) for number, one in enumerate(pairs(4))])
    some = pair_batches.group_pairs(items, share=True, margins=True)
    how = reward_forward.route_of(reward_forward.build(tiny_model, sft, profile(), seed=5).model, autocast=False)
    ours = float(reward_forward.loss_of(how, some, center_weight=0.01).detach()) / 4
    width = max(len(side) for item in items for side in (item.chosen, item.rejected))
    sides = [item.chosen for item in items] + [item.rejected for item in items]
    ids = torch.tensor([[*side, *[0] * (width - len(side))] for side in sides])
    margins = torch.tensor([item.pair.margin for item in items])

    class Bare:  # what compute_loss asks of its trainer
        class model:
            training = False

        class args:
            center_rewards_coefficient = 0.01

        class accelerator:
            gather = gather_for_metrics = staticmethod(lambda x: x)

        _metrics = defaultdict(lambda: defaultdict(list))  # noqa: RUF012
        _total_train_tokens, _tp_size = 0, 1

    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long(), "margin": margins}
    theirs = trl.RewardTrainer.compute_loss(Bare, Shim(plain(tiny_model, sft)), inputs)
    assert ours == pytest.approx(float(theirs.detach()), rel=1e-4)
    bare = reward_forward.loss_of(how, pair_batches.group_pairs(items, share=True, margins=False), center_weight=None)
    without = float(bare.detach()) / 4
    assert abs(without - ours) > 0.1


class Shim:
    """TRL hands the margin to the model too; a real one drops it."""

    def __init__(self, model):
        self.model, self.training = model, False

    def __call__(self, margin, **inputs):
        return self.model(**inputs)


def replace_margin(one, margin):
    from msgspec.structs import replace as changed

    return changed(one, margin=margin)


def gradients(model, sft, some):
    found = reward_forward.build(model, sft, profile(), seed=5).model
    adapted, _ = trainer_loop.wrap_with_adapter(plan().fit, found, trainer_loop.REWARD)
    with torch.no_grad():
        for name, weights in adapted.named_parameters():
            if "lora_B" in name:
                weights.normal_(std=0.05, generator=torch.Generator().manual_seed(3))
    loss = reward_forward.loss_of(reward_forward.route_of(adapted, autocast=False), some, center_weight=0.01)
    loss.backward()
    return float(loss.detach()), {
        name: weights.grad for name, weights in adapted.named_parameters() if weights.requires_grad
    }


def test_shared_prompts_give_the_loss_and_gradients_of_separate_rows(tiny_model, sft):
    several = [*pairs(4), pair(90, "yes 3", "no 1", "Question a?"), pair(91, "yes 0", "no 9", "Question a?")]
    some = bundles(tiny_model, several)
    assert max(len(bundle.branches) for bundle in some) == 5
    together_loss, together = gradients(tiny_model, sft, some)
    apart_loss, apart = gradients(tiny_model, sft, split_answers(some))
    assert together_loss == pytest.approx(apart_loss, rel=1e-5)
    assert any("score" in name for name in apart)
    for name, grad in apart.items():
        torch.testing.assert_close(together[name], grad, rtol=1e-3, atol=1e-5)


def test_it_learns_an_easy_preference_and_the_same_seed_gives_the_same_bytes(tiny_model, sft, tmp_path):
    chosen = plan(center_rewards_coefficient=0.01, epochs=8)
    first = fit(tiny_model, sft, tmp_path, chosen, "first")
    fit(tiny_model, sft, tmp_path, chosen, "second")
    assert first.best_loss < 0.2 < first.first_loss
    assert first.shared_prompts
    assert first.tokens < first.tokens_apart
    assert digest(tmp_path / "first") == digest(tmp_path / "second")
    assert sorted(digest(tmp_path / "first")) == ["adapter_config.json", "adapter_model.safetensors"]
    assert str(tmp_path) not in (tmp_path / "first" / "adapter_config.json").read_text()
    held_out = bundles(tiny_model, pairs(6, 40))
    (raw,) = RewardModelTrainer().rewards(
        chosen, model=tiny_model, sft=sft, members=[tmp_path / "first"], bundles=held_out
    )
    gaps = [
        rewards[pair.chosen] - rewards[pair.rejected]
        for rewards, bundle in zip(raw, held_out, strict=True)
        for pair in bundle.pairs
    ]
    assert min(gaps) > 0
    loss = sum(float(torch.nn.functional.softplus(torch.tensor(-gap))) for gap in gaps) / len(gaps)
    assert loss == pytest.approx(first.best_loss, abs=1e-5)  # what was saved is what was best
    apart = fit(tiny_model, sft, tmp_path, plan(epochs=1, seed=6), "other")
    assert digest(tmp_path / "other") != digest(tmp_path / "first")
    assert apart.steps == apart.planned_steps


def test_trl_loads_what_was_saved(tiny_model, sft, tmp_path):
    """The folder is an ordinary peft adapter of a sequence classifier: the head is in it."""
    fit(tiny_model, sft, tmp_path, plan(epochs=1))
    items = compared(tiny_model, pairs(3))
    model = peft.PeftModel.from_pretrained(plain(tiny_model, sft), tmp_path / "out").eval()
    with torch.no_grad():
        theirs = [float(model(input_ids=torch.tensor([item.chosen])).logits) for item in items]
    held_out = pair_batches.group_pairs(items, share=True, margins=False)
    (raw,) = RewardModelTrainer().rewards(
        plan(), model=tiny_model, sft=sft, members=[tmp_path / "out"], bundles=held_out
    )
    ours = [rewards[bundle.pairs[0].chosen] for rewards, bundle in zip(raw, held_out, strict=True)]
    assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"adapter": LoraArgs("dora", 4, 8, 0.0, "all-linear")},
        {"adapter": LoraArgs("rslora", 4, 8, 0.1, ("q_proj", "up_proj"))},
        {"profile": profile(dtype="bfloat16")},
        {"profile": profile(gradient_checkpointing=True)},
        {"prefix_sharing": False},
    ],
    ids=",".join,
)
def test_settings_reach_the_fit(tiny_model, sft, tmp_path, change):
    some = bundles(tiny_model, pairs(), share=change.get("prefix_sharing", True))
    found = fit(tiny_model, sft, tmp_path, plan(epochs=3, **change), train=some)
    assert found.best_loss < found.first_loss
    assert found.shared_prompts == change.get("prefix_sharing", True)


def test_early_stopping_restores_the_best(tiny_model, sft, tmp_path):
    found = fit(
        tiny_model, sft, tmp_path, plan(learning_rate=0.9, max_grad_norm=None, epochs=20, evals_per_epoch=2, patience=2)
    )
    measured = {point.step: point.validation_loss for point in found.history if point.validation_loss is not None}
    assert found.steps < found.planned_steps
    assert found.best_loss == min(measured.values()) == measured[found.best_step]


def test_a_model_whose_answers_see_each_other_reads_them_apart(tiny_model, sft, tmp_path, monkeypatch):
    monkeypatch.setattr(reward_forward, "supports_side_by_side", lambda how, some: False)
    found = fit(tiny_model, sft, tmp_path, plan(epochs=1))
    assert not found.shared_prompts
    assert found.tokens == found.tokens_apart


def test_the_probe_sees_a_mask_that_is_not_heeded(tiny_model, sft):
    how = reward_forward.route_of(reward_forward.build(tiny_model, sft, profile(), seed=5).model, autocast=False)
    some = bundles(tiny_model, [pair(1, "x" * 40, "y" * 40)])
    assert reward_forward.supports_side_by_side(how, some)

    def open_mask(attention_mask, **inputs):
        return how.route.decoder(attention_mask=None, **inputs)

    deaf = replace(how, route=replace(how.route, decoder=open_mask))
    assert not reward_forward.supports_side_by_side(deaf, some)


CHILD = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from types import SimpleNamespace
import test_reward_trainer as t
t.fit(Path({model!r}), Path({sft!r}), Path({root!r}), t.plan(epochs=12), "out")
"""


def test_a_killed_fit_goes_on_and_ends_with_the_same_bytes(tiny_model, sft, tmp_path):
    chosen = plan(epochs=12)
    whole = fit(tiny_model, sft, tmp_path, chosen, "whole")
    text = CHILD.format(tests=str(Path(__file__).parent), root=str(tmp_path), model=str(tiny_model), sft=str(sft))
    process = subprocess.Popen(
        [sys.executable, "-c", text], env={**os.environ, "HF_HUB_OFFLINE": "1"}, stderr=subprocess.PIPE, text=True
    )
    work, until = tmp_path / "work-out", time.monotonic() + 90
    while not list(work.glob(f"checkpoint-*/{training_checkpoint.MARKER}")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert not (tmp_path / "out").exists()
    resumed = fit(tiny_model, sft, tmp_path, chosen)
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")
    assert [(p.step, p.loss, p.validation_loss) for p in resumed.history] == [
        (p.step, p.loss, p.validation_loss) for p in whole.history
    ]


def test_ctrl_c_stops_cleanly(tiny_model, sft, tmp_path, monkeypatch):
    own = training_run.update_progress

    def count(run, number):
        own(run, number)
        if number == 4:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(training_run, "update_progress", count)
    with pytest.raises(InfrastructureError) as caught:
        fit(tiny_model, sft, tmp_path, plan(epochs=6))
    assert re.fullmatch(r"reward stopped at step [45] of 18; its state is kept", caught.value.message)
    assert caught.value.hint == "run the same command again to resume"


def test_a_loss_that_is_no_number_is_named(tiny_model, sft, tmp_path, monkeypatch):
    own, calls = reward_forward.loss_of, []

    def breaks(how, some, **rest):
        loss = own(how, some, **rest)
        calls.append(loss.requires_grad)
        return loss * float("nan") if sum(calls) > 2 else loss

    monkeypatch.setattr(reward_forward, "loss_of", breaks)
    with pytest.raises(UsageError) as caught:
        fit(tiny_model, sft, tmp_path, plan())
    assert re.fullmatch(
        r"reward: the loss is nan at step 3; the last good loss was \d\.\d{4} at step 2", caught.value.message
    )
    assert caught.value.hint == "lower reward.learning_rate (now 0.005), or reward.max_grad_norm (now 1)"
    assert not (tmp_path / "out").exists()


def test_a_validation_loss_that_is_no_number_leaves_nothing_to_keep():
    run = SimpleNamespace(plan=plan().fit, state=training_checkpoint.TrainerState())
    with pytest.raises(UsageError) as caught:
        training_run.update_best(run, None, math.nan, 7)
    assert caught.value.message == (
        "reward: the validation loss is nan at step 7, and there are no earlier weights to keep"
    )
    run.state.best, run.state.best_loss, run.state.best_step = {"w": 1}, 0.5, 3
    training_run.update_best(run, None, math.nan, 9)
    assert (run.state.best, run.state.best_step, run.state.misses) == ({"w": 1}, 3, 1)


def test_out_of_memory_says_what_to_lower(tiny_model, sft, tmp_path, monkeypatch):
    def fail(*_args, **_kwargs):
        raise RuntimeError("can't allocate memory: you tried to allocate 99 bytes.")

    monkeypatch.setattr(reward_forward, "loss_of", fail)
    with pytest.raises(InfrastructureError) as caught:
        fit(tiny_model, sft, tmp_path, plan())
    assert caught.value.hint == (
        "lower hardware.train_batch_tokens (now 256), reward.max_length or reward.lora_rank, switch on hardware.gradient_checkpointing, or take a smaller model"
    )


def test_an_unknown_target_is_named(tiny_model, sft, tmp_path):
    with pytest.raises(UsageError) as caught:
        fit(tiny_model, sft, tmp_path, plan(adapter=LoraArgs("lora", 4, 8, 0.0, ("query",))))
    assert caught.value.message == (
        "reward.target_modules names query, which the model does not have; it has down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    )


@pytest.fixture(scope="module")
def reward(tiny_model, sft, tmp_path_factory):
    """A reward artifact of two members and a judge."""
    folder = tmp_path_factory.mktemp("reward") / "reward"
    names = ("members/0", "members/1", "judge")
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        fit(tiny_model, sft, folder, plan(epochs=4, seed=number), name)
        shutil.rmtree(folder / f"work-{name}", ignore_errors=True)
    weights = [atomic_io.sha256_path(folder / name / "adapter_model.safetensors") for name in names]
    base = model_spec.load(tiny_model)
    atomic_io.write_json(
        folder / "reward.json",
        RewardFacts(
            base=base.weights_sha256,
            sft=atomic_io.sha256_path(sft / "adapter_model.safetensors"),
            template=base.template_sha256,
            max_tokens=400,
            members=Ensemble([0, 1], weights[:2], [0.5, -0.25], 2.0, 12, 12),
            judge=Ensemble([2], weights[2:], [0.0], 1.0, 12, 12),
            validation_pairs=6,
            test_pairs=6,
        ),
    )
    return folder


def test_scores_are_centered_means_with_their_spread(tiny_model, sft, reward):
    asked = pairs(5)
    loaded = reward_scorer.load(base=tiny_model, sft=sft, reward=reward, part="members", profile=profile())
    texts = [one.chosen[0].content for one in asked] + [one.rejected[0].content for one in asked]
    found = loaded.score([ScoredPrompt(one.messages) for one in asked] * 2, texts)
    some = bundles(tiny_model, asked)
    raw = RewardModelTrainer().rewards(
        plan(), model=tiny_model, sft=sft, members=[reward / "members/0", reward / "members/1"], bundles=some
    )
    for number, bundle in enumerate(some):
        first, second = (member[number][bundle.pairs[0].chosen] for member in raw)
        first, second = first - 0.5, second + 0.25
        assert found[number].value == pytest.approx((first + second) / 2 / 2.0, abs=1e-5)
        assert found[number].spread == pytest.approx(abs(first - second) / 2 / 2.0, abs=1e-5)
    again = loaded.score(
        [ScoredPrompt(one.messages) for one in reversed(asked)], [one.chosen[0].content for one in reversed(asked)]
    )
    assert [one.value for one in again] == pytest.approx([one.value for one in reversed(found[:5])], abs=1e-5)
    assert loaded.score([], []) == []
    loaded.close()
    judge = reward_scorer.load(base=tiny_model, sft=sft, reward=reward, part="judge", profile=profile())
    (one,) = judge.score([ScoredPrompt(asked[0].messages)], [texts[0]])
    assert one.spread == 0
    assert one.value != found[0].value


def test_many_answers_of_one_prompt_share_rows_and_equal_ones_are_read_once(tiny_model, sft, reward):
    loaded = reward_scorer.load(base=tiny_model, sft=sft, reward=reward, part="judge", profile=profile())
    prompt, texts = (
        ScoredPrompt([Message("user", "Question a?")]),
        [f"answer {number % 30} " + "x" * 20 for number in range(60)],
    )
    together = loaded.score([prompt] * 60, texts)
    alone = [loaded.score([prompt], [text])[0] for text in texts[:4]]
    assert [one.value for one in together[:4]] == pytest.approx([one.value for one in alone], abs=1e-4)
    assert together[:30] == together[30:]
    rows, owners = loaded._rows([prompt] * 60, texts)
    assert len(owners) == 30
    assert 1 < len(rows) < 10
    assert max(row.length for row in rows) <= 384


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("base", "was trained on the base weights 000000000000…, not "),
        ("template", "was trained on the chat template 000000000000…, not "),
        ("sft", "was trained on the adapter 000000000000…, not "),
    ],
)
def test_a_reward_folder_of_another_model_is_refused(tiny_model, sft, reward, tmp_path, what, message):
    folder = tmp_path / "reward"
    shutil.copytree(reward, folder)
    facts = atomic_io.read_json(folder / "reward.json")
    own, facts[what] = facts[what], "0" * 64
    atomic_io.write_json(folder / "reward.json", facts)
    with pytest.raises(ArtifactError) as caught:
        reward_scorer.load(base=tiny_model, sft=sft, reward=folder, part="members", profile=profile())
    fits = sft if what == "sft" else tiny_model
    assert caught.value.message == f"{folder} does not fit {fits}: it {message}{own[:12]}…"
    assert caught.value.hint == "rebuild it with: tunectl repro --to reward"


def test_changed_weights_and_an_absent_judge_are_refused(tiny_model, sft, reward, tmp_path):
    folder = tmp_path / "reward"
    shutil.copytree(reward, folder)
    facts = atomic_io.read_json(folder / "reward.json")
    path = folder / "members" / "1" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ArtifactError) as caught:
        reward_scorer.load(base=tiny_model, sft=sft, reward=folder, part="members", profile=profile())
    recorded = facts["members"]["weights"][1][:12]
    assert caught.value.message == f"{path} is not what {folder / 'reward.json'} records ({recorded}…)"
    facts["judge"] = None
    atomic_io.write_json(folder / "reward.json", facts)
    with pytest.raises(ArtifactError) as caught:
        reward_scorer.load(base=tiny_model, sft=sft, reward=folder, part="judge", profile=profile())
    assert (
        caught.value.message == f"{folder} has no evaluation model: reward.evaluation_model was null when it was built"
    )


def test_tools_on_offer_are_read_with_the_prompt(tiny_model, sft, reward):
    loaded = reward_scorer.load(base=tiny_model, sft=sft, reward=reward, part="judge", profile=profile())
    tool = {"type": "function", "function": {"name": "weather", "description": "", "parameters": {}}}
    messages = [Message("user", "Question a?")]
    spelled = template.load(tiny_model)._inline_tools(messages, [tool])
    bare, offered, written = loaded.score(
        [ScoredPrompt(messages), ScoredPrompt(messages, [tool]), ScoredPrompt(spelled)], ["yes"] * 3
    )
    assert offered.value == pytest.approx(written.value, abs=1e-5)
    assert abs(offered.value - bare.value) > 1e-5


def test_a_score_that_is_no_number_is_an_error(tiny_model, sft, reward, monkeypatch):
    loaded = reward_scorer.load(base=tiny_model, sft=sft, reward=reward, part="judge", profile=profile())
    monkeypatch.setattr(reward_forward, "rewards_of", lambda how, rows: torch.tensor([float("nan")]))
    with pytest.raises(ArtifactError) as caught:
        loaded.score([ScoredPrompt([Message("user", "Question a?")])], ["yes"])
    assert caught.value.message == f"{reward / 'judge'}: the reward of an answer is nan, not a finite number"

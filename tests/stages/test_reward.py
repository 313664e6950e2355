"""The reward stage with a trainer that knows the answer, one that knows nothing, and once with the real one."""

import hashlib
import json
import random
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from tokenizers import pre_tokenizers

from tunectl.artifacts import atomic_io
from tunectl.artifacts.records import AnnotationMetadata, Message, PreferencePair, Source
from tunectl.artifacts.row_counts import load
from tunectl.chat import model_spec
from tunectl.config.schema.reward import RewardStage
from tunectl.core.errors import ArtifactError, DataError, InfrastructureError, UsageError
from tunectl.pipeline.stages import reward
from tunectl.preferences.agreement import InterAnnotatorAgreement, Proportion
from tunectl.training.protocols import LogPoint, TrainResult
from tunectl.training.reward.pair_batches import FILLER_TOKEN
from tunectl.training.reward.protocols import ScoredPrompt
from tunectl.training.reward.reward_artifacts import RewardFacts, RewardResults
from tunectl.training.reward.reward_gate import RewardGateResult

Y = sorted(pre_tokenizers.ByteLevel.alphabet()).index("y") + 3
"""Token of the letter y in the tiny model."""
CONF = Path(__file__).parents[2] / "conf"


def stage(**changes):
    section = yaml.safe_load((CONF / "reward" / "lora.yaml").read_text())
    section["learning_rate"] = float(section["learning_rate"])
    section["gate"]["resamples"] = 200
    profile = yaml.safe_load((CONF / "hardware" / "cpu.yaml").read_text())
    given = {"reward": section | changes, "seed": 3, "hardware": profile, "project": "test"}
    return RewardStage.model_validate(given)


@dataclass
class Fake:
    """Knows how good an answer is by its letters; ``right`` is the share of pairs that it tells."""

    right: float = 1.0
    scale: float = 3.0
    calls: list = field(default_factory=list)
    stop_at: int | None = None

    def fit(self, plan, *, model, sft, train, validation, out, work):
        if self.stop_at == len(self.calls):
            raise InfrastructureError("reward stopped at step 1 of 4; its state is kept")
        self.calls.append((plan, train, validation, work))
        work.mkdir(parents=True)
        (out / "adapter_model.safetensors").write_bytes(f"weights of {plan.fit.seed}".encode())
        (out / "adapter_config.json").write_text("{}")
        points = (LogPoint(2, 1, 0.6, None, 1e-4, 100.0), LogPoint(4, 1, 0.5, 0.55, 0.0, 90.0))
        return TrainResult(4, 4, 4, 0.55, 0.7, 1000, 2000, 10.0, 77, shared_prompts=True, history=points)

    def rewards(self, plan, *, model, sft, members, bundles):
        found = []
        for number, member in enumerate(members):
            assert (member / "adapter_model.safetensors").is_file()
            rng = random.Random(number)
            raw = []
            for bundle in bundles:
                told = self.scale if rng.random() < self.right else -self.scale
                raw.append([10.0 * number + told * (Y in branch.ids) for branch in bundle.branches])
            found.append(raw)
        return found


def pair(number, chosen="y" * 5, rejected="n" * 5, prompt=None, **more):
    asked = prompt or f"Question {number}"
    return PreferencePair(
        f"p{number}",
        asked,
        [Message("user", asked)],
        [Message("assistant", chosen)],
        [Message("assistant", rejected)],
        [AnnotationMetadata(Source("data.jsonl", number))],
        **more,
    )


def write(folder, train=20, validation=10, test=40, **changes):
    start = 0
    for name, count in (("train", train), ("validation", validation), ("test", test)):
        atomic_io.write_rows(folder / f"{name}.jsonl", [pair(number) for number in range(start, start + count)])
        start += count
    agreement = InterAnnotatorAgreement(0, [], 0, None, None, None, None, None)
    atomic_io.write_json(folder / "report.json", {"longer_wins": None, "agreement": agreement, "more": 1, **changes})


@pytest.fixture
def given(tmp_path, tiny_model):
    sft, cpt, preferences = tmp_path / "sft", tmp_path / "cpt", tmp_path / "preferences"
    atomic_io.write_json(cpt / "passed_through.json", {"reason": "off"})
    sft.mkdir()
    model_spec.save(model_spec.load(tiny_model), sft)
    (sft / "adapter_model.safetensors").write_bytes(b"tuned")
    write(preferences)
    return reward.Inputs(tiny_model, cpt, sft, preferences), outputs(tmp_path, "one")


def outputs(tmp_path, name):
    for kind in ("artifact", "plots"):
        (tmp_path / name / kind).mkdir(parents=True)
    return reward.Outputs(tmp_path / name / "artifact", tmp_path / name / "plots", tmp_path / "work" / "reward-key")


def digest(folder: Path):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_model_that_knows_passes_and_leaves_everything(given):
    inputs, out = given
    fake = Fake(right=0.95)
    found = reward.run(stage(ensemble_size=2), inputs, out, trainer=fake)
    assert sorted(digest(out.artifact)) == [
        "history.csv",
        "judge/adapter_config.json",
        "judge/adapter_model.safetensors",
        "judge/history.csv",
        "members/0/adapter_config.json",
        "members/0/adapter_model.safetensors",
        "members/0/history.csv",
        "members/1/adapter_config.json",
        "members/1/adapter_model.safetensors",
        "members/1/history.csv",
        "model_spec.json",
        "rejects.jsonl",
        "report.html",
        "results.json",
        "reward.json",
        "row_counts.json",
        "verdict.json",
    ]
    assert sorted(digest(out.plots)) == ["history.csv", "reliability.csv"]
    assert "tokens_per_second" in (out.plots / "history.csv").read_text()
    assert "tokens_per_second" not in (out.artifact / "history.csv").read_text()
    verdict = atomic_io.read_json(out.artifact / "verdict.json", RewardGateResult)
    assert (verdict.passed, verdict.verdict) == (True, "knows_preferences")
    assert (found.passed, found.train_pairs, found.test_pairs, found.tokens_per_second) == (True, 14, 40, 100.0)
    results = atomic_io.read_json(out.artifact / "results.json", RewardResults)
    assert found.accuracy == results.test.accuracy.value > 0.85
    assert results.judge.pairs == 40
    assert len(results.members_alone) == 2
    assert [(one.name, one.seed) for one in results.fits] == [("members/0", 3), ("members/1", 4), ("judge", 5)]
    assert not out.work.exists()
    assert not list(out.work.parent.iterdir())


def test_facts_name_what_the_weights_belong_to(given):
    inputs, out = given
    reward.run(stage(ensemble_size=2), inputs, out, trainer=Fake())
    facts = atomic_io.read_json(out.artifact / "reward.json", RewardFacts)
    base = model_spec.load(inputs.model)
    assert (facts.base, facts.template) == (base.weights_sha256, base.template_sha256)
    assert facts.sft == hashlib.sha256(b"tuned").hexdigest()
    assert facts.members.seeds == [3, 4]
    assert facts.members.weights == [hashlib.sha256(f"weights of {seed}".encode()).hexdigest() for seed in (3, 4)]
    assert facts.members.centers == pytest.approx([1.5, 11.5])  # half of the answers have 3, half 0; 10 more a member
    assert facts.members.scale == pytest.approx(1.5)
    assert (facts.members.pairs, facts.judge.pairs) == (14, 6)
    assert (facts.validation_pairs, facts.test_pairs) == (10, 40)


def test_no_prompt_is_of_members_and_judge(given):
    inputs, out = given
    fake = Fake()
    reward.run(stage(), inputs, out, trainer=fake)
    (_, own, held, _), (_, judges, also_held, _) = fake.calls
    seen = [{tuple(bundle.rows[0].prompt.ids) for bundle in some} for some in (own, judges)]
    assert [len(prompts) for prompts in seen] == [14, 6]
    assert not seen[0] & seen[1]
    assert held == also_held
    assert len(held) == 10


def test_what_the_trainer_gets(given):
    inputs, out = given
    fake = Fake()
    reward.run(
        stage(evaluation_model=None, batch_size=8, center_rewards_coefficient=None, early_stopping=None),
        inputs,
        out,
        trainer=fake,
    )
    ((plan, train, _, work),) = fake.calls
    assert (plan.center_rewards_coefficient, plan.fit.label, plan.fit.patience, plan.fit.seed) == (
        None,
        "reward",
        None,
        3,
    )
    assert plan.fit.batch_size == 16
    assert work == out.work.with_name("reward-key-members-0")
    assert [branch.ids[-2:] for branch in train[0].branches] == [[2, FILLER_TOKEN], [2, FILLER_TOKEN]]
    assert not (out.artifact / "judge").exists()


def test_margins_are_used_only_where_asked_and_never_on_held_out_pairs(given, tmp_path):
    inputs, _ = given
    for name in ("train", "validation"):
        rows = list(atomic_io.read_rows(inputs.preferences / f"{name}.jsonl", PreferencePair))
        atomic_io.write_rows(inputs.preferences / f"{name}.jsonl", [pair(n, margin=2.0) for n in range(len(rows))])
    for number, (asked, margins) in enumerate(((True, {2.0}), (False, {0.0}))):
        fake = Fake()
        reward.run(stage(margins=asked), inputs, outputs(tmp_path, f"more{number}"), trainer=fake)
        _, train, validation, _ = fake.calls[0]
        assert {pair.margin for bundle in train for pair in bundle.pairs} == margins
        assert {pair.margin for bundle in validation for pair in bundle.pairs} == {0.0}


def test_a_model_that_knows_nothing_gets_a_no_and_ends_well(given):
    inputs, out = given
    write(
        inputs.preferences,
        longer_wins=Proportion(0.7, 0.6, 0.8, 100),
        agreement=InterAnnotatorAgreement(50, [], 20, 0.3, 0.2, 0.4, None, None),
    )
    found = reward.run(stage(), inputs, out, trainer=Fake(right=0.5))
    verdict = atomic_io.read_json(out.artifact / "verdict.json", RewardGateResult)
    assert (found.passed, verdict.passed, verdict.verdict) == (False, False, "no_better_than_chance")
    assert re.match(
        r"The reward model knows no more than chance \(50\.0 %\): it is right on \d\d\.\d %", verdict.reason
    )
    assert any("alpha 0.30" in line for line in verdict.helps)
    assert any("longer answer wins 70%" in line for line in verdict.helps)
    page = (out.artifact / "report.html").read_text()
    assert "What would help" in page
    assert (out.artifact / "members/0/adapter_model.safetensors").is_file()


def test_a_model_that_only_knows_lengths_gets_a_no(given):
    inputs, out = given
    start = 0
    for name, count in (("train", 20), ("validation", 10), ("test", 40)):
        rows = [pair(n, "y" * 9, "n" * 3) if n % 5 else pair(n, "y" * 3, "n" * 9) for n in range(start, start + count)]
        atomic_io.write_rows(inputs.preferences / f"{name}.jsonl", rows)
        start += count
    found = reward.run(stage(), inputs, out, trainer=Fake(right=0.8))
    assert found.length_only == 0.8
    assert found.verdict == "no_better_than_length"
    assert found.accuracy_low > 0.5


def test_limits_draw_whole_prompts_and_say_so(given):
    inputs, out = given
    rows = [pair(n, "y" * (1 + n % 3), prompt=f"Question {n // 3}") for n in range(30)]
    atomic_io.write_rows(inputs.preferences / "train.jsonl", rows)
    fake = Fake()
    found = reward.run(
        stage(evaluation_model=None, max_pairs={"train": 10, "validation": None, "test": 5}), inputs, out, trainer=fake
    )
    assert (found.train_pairs, found.test_pairs) == (9, 5)
    assert [len(bundle.pairs) for bundle in fake.calls[0][1]] == [3, 3, 3]
    results = atomic_io.read_json(out.artifact / "results.json", RewardResults)
    assert results.available == [30, 10, 40]
    assert load(out.artifact).rows_in == 9 + 10 + 5


def test_slices_and_worst_pairs(given):
    inputs, out = given
    rows = [pair(n, kind="a" if n % 2 else "b", fields={"area": "north"}) for n in range(40)]
    atomic_io.write_rows(inputs.preferences / "test.jsonl", rows)
    reward.run(stage(), inputs, out, trainer=Fake(right=0.8))
    results = atomic_io.read_json(out.artifact / "results.json", RewardResults)
    assert [(one.field, one.value, one.pairs) for one in results.slices] == [("kind", "a", 20), ("kind", "b", 20)]
    assert 0 < len(results.worst) <= 8
    assert results.worst[0].chosen == "yyyyy"
    assert results.worst[0].chosen_score < results.worst[0].rejected_score
    page = (out.artifact / "report.html").read_text()
    for words in ("<h2>Kinds and fields</h2>", "<h2>Worst judged pairs</h2>", "yyyyy", "<h2>Calibration</h2>", "<svg"):
        assert words in page
    assert 'name="viewport"' in page
    assert not re.search(r"(src|href)=\"https?:", page)


def test_a_reward_that_is_no_number_is_named(given):
    inputs, out = given
    with pytest.raises(UsageError) as caught:
        reward.run(stage(), inputs, out, trainer=Fake(scale=float("nan")))
    assert (
        caught.value.message
        == "reward: the reward that members/0 gives to 100 of 100 held-out answers is nan, not a number"
    )
    assert caught.value.hint == "lower reward.learning_rate (now 0.0003), or reward.max_grad_norm (now 1)"


def test_switched_off_it_passes_through(given):
    inputs, out = given
    cfg = RewardStage.model_validate(
        {"reward": {"method": "none"}, "seed": 3, "hardware": stage().hardware.model_dump(), "project": "test"}
    )
    assert reward.run(cfg, inputs, out, trainer=Fake()).verdict == "switched_off"
    assert list(digest(out.artifact)) == ["passed_through.json"]
    assert (
        out.plots / "history.csv"
    ).read_text() == "step,epoch,loss,validation_loss,learning_rate,tokens_per_second\n"
    assert (out.plots / "reliability.csv").read_text() == "confidence,accuracy,low,high,pairs\n"


def test_preferences_that_are_switched_off_are_an_error(given):
    inputs, out = given
    atomic_io.write_json(inputs.preferences / "passed_through.json", {"reason": "off"})
    with pytest.raises(DataError) as caught:
        reward.run(stage(), inputs, out, trainer=Fake())
    assert caught.value.message == "reward: preferences are switched off, so there are no pairs to learn from"
    assert caught.value.hint == (
        "switch preferences on, for example preferences=default, or switch reward off: reward=none"
    )


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_a_part_without_pairs_is_an_error(given, name):
    inputs, out = given
    atomic_io.write_rows(inputs.preferences / f"{name}.jsonl", [])
    with pytest.raises(DataError) as caught:
        reward.run(stage(), inputs, out, trainer=Fake())
    assert caught.value.message == f"reward: the {name} part of preferences has no pairs to use"


def test_a_part_whose_pairs_are_all_too_long_is_an_error(given):
    inputs, out = given
    atomic_io.write_rows(inputs.preferences / "test.jsonl", [pair(1, "y" * 900)])
    with pytest.raises(DataError) as caught:
        reward.run(stage(max_length=200), inputs, out, trainer=Fake())
    assert caught.value.message == "reward: the test part of preferences has no pairs to use"


def test_training_pairs_of_one_prompt_leave_none_for_a_judge(given):
    inputs, out = given
    atomic_io.write_rows(inputs.preferences / "train.jsonl", [pair(n, "y" * n, prompt="Same") for n in range(1, 9)])
    with pytest.raises(DataError) as caught:
        reward.run(stage(), inputs, out, trainer=Fake())
    assert caught.value.message == (
        "reward: the training pairs have 1 prompt, and the evaluation model needs prompts that training does not use"
    )
    assert (
        caught.value.hint
        == "add pairs of more prompts, or switch the evaluation model off: reward.evaluation_model=null"
    )


def test_held_out_pairs_of_one_prompt_cannot_pass(given):
    inputs, out = given
    atomic_io.write_rows(inputs.preferences / "test.jsonl", [pair(n, "y" * n, prompt="Same") for n in range(1, 9)])
    assert reward.run(stage(), inputs, out, trainer=Fake()).verdict == "too_few_pairs"


def test_long_pairs_are_rejected_whole_and_named(given):
    inputs, out = given
    rows = list(atomic_io.read_rows(inputs.preferences / "train.jsonl", PreferencePair))
    atomic_io.write_rows(inputs.preferences / "train.jsonl", [*rows, pair(99, "y" * 900)])
    found = reward.run(stage(max_length=200), inputs, out, trainer=Fake())
    account = load(out.artifact)
    assert (account.rows_in, account.kept, account.records_out, account.rejected) == (71, 70, 70, {"too_long": 1})
    assert account.samples["too_long"][0].source == Source("data.jsonl", 99)
    assert found.rejected == 1


def test_too_many_long_pairs_fail_the_stage(given):
    inputs, out = given
    rows = [pair(number, "y" * (900 if number % 2 else 5)) for number in range(20)]
    atomic_io.write_rows(inputs.preferences / "train.jsonl", rows)
    with pytest.raises(DataError) as caught:
        reward.run(stage(max_length=200), inputs, out, trainer=Fake())
    assert caught.value.message.startswith(
        "reward: 14.3% of 70 rows were rejected; the limit is 10%\n         10  too_long: first data.jsonl:1 "
    )
    assert caught.value.hint == "fix the data, or allow more: reward.max_rejected_share=<share from 0 to 1>"


def test_an_adapter_of_another_base_is_refused(given):
    inputs, out = given
    from msgspec.structs import replace as changed

    model_spec.save(changed(model_spec.load(inputs.model), weights_sha256="0" * 64), inputs.sft)
    with pytest.raises(ArtifactError, match="it was trained with the weights 000000000000"):
        reward.run(stage(), inputs, out, trainer=Fake())


def test_the_further_trained_model_is_the_base(given, tiny_model):
    inputs, out = given
    shutil.rmtree(inputs.cpt)
    shutil.copytree(tiny_model, inputs.cpt)
    seen = []

    @dataclass
    class Looks(Fake):
        def fit(self, plan, *, model, **rest):
            seen.append(model)
            return super().fit(plan, model=model, **rest)

    reward.run(stage(), inputs, out, trainer=Looks())
    assert set(seen) == {inputs.cpt}


def test_the_largest_seed_has_members_and_a_judge(given):
    inputs, out = given
    cfg, fake = stage(ensemble_size=2), Fake()
    reward.run(cfg.model_copy(update={"seed": 2**32 - 1}), inputs, out, trainer=fake)
    assert [call[0].fit.seed for call in fake.calls] == [2**32 - 1, 0, 1]


def test_a_finished_member_is_not_fitted_again(given, tmp_path):
    inputs, out = given
    with pytest.raises(InfrastructureError):
        reward.run(stage(ensemble_size=2), inputs, out, trainer=Fake(stop_at=1))
    assert out.work.is_dir()
    (out.work / "members" / "1").mkdir(parents=True, exist_ok=True)
    (out.work / "members" / "1" / "half").write_text("written when the kill came")
    left = out.work.with_name(f"{out.work.name}-members-0")
    left.mkdir()  # of a kill between the end of the fit and its cleaning up
    again = outputs(tmp_path, "again")
    fake = Fake()
    reward.run(stage(ensemble_size=2), inputs, again, trainer=fake)
    assert not left.exists()
    assert [call[0].fit.seed for call in fake.calls] == [4, 5]
    whole = outputs(tmp_path, "whole")
    reward.run(stage(ensemble_size=2), inputs, whole, trainer=Fake())
    assert digest(again.artifact) == digest(whole.artifact)
    assert digest(again.plots) == digest(whole.plots)


def test_the_real_trainer_learns_and_the_same_seed_gives_the_same_bytes(given, tmp_path):
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    from tunectl.backends.modeling import model_loader, reward_scorer

    inputs, out = given
    profile = stage().hardware.model_copy(update={"threads": 1, "dtype": "float32", "train_batch_tokens": 512})
    torch.manual_seed(1)
    model = model_loader.load(inputs.model, adapter=None, profile=profile).model
    settings = peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    peft.get_peft_model(model, settings).save_pretrained(inputs.sft)
    cfg = stage(lora_rank=4, lora_alpha=8, epochs=6, learning_rate=5e-3, batch_size=4, evaluation_model=None)
    cfg = cfg.model_copy(update={"hardware": profile})
    found = reward.run(cfg, inputs, out)
    assert found.passed
    assert found.accuracy > 0.9
    again = outputs(tmp_path, "again")
    reward.run(cfg, inputs, again)
    assert digest(out.artifact) == digest(again.artifact)
    loaded = reward_scorer.load(base=inputs.model, sft=inputs.sft, reward=out.artifact, part="members", profile=profile)
    asked = [ScoredPrompt([Message("user", "Question 99")])] * 2
    better, worse = loaded.score(asked, ["yyyyy", "nnnnn"])
    assert better.value > 0.3 > -0.3 > worse.value
    text = json.dumps(atomic_io.read_json(out.artifact / "results.json"))
    assert str(tmp_path) not in text

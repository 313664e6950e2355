"""The evaluate stage with an aligned model: its column, win rates by every judge, slot errors and the second verdict."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest
import tiny_policies
import yaml

from tunectl.artifacts import atomic_io
from tunectl.artifacts.records import Example, Message, ReferenceAnswer, Source
from tunectl.backends.text import json_validation
from tunectl.backends.wiring import evaluation
from tunectl.chat import model_spec
from tunectl.config.schema.evaluate import EvaluateStage
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.core.errors import ArtifactError, DataError
from tunectl.evaluation import results, summary
from tunectl.evaluation.few_shot import FewShotRenderer
from tunectl.evaluation.protocols import GeneratedText, GenerationPrompt, LogProb
from tunectl.pipeline.stages import evaluate
from tunectl.preferences import annotation_store
from tunectl.training.reward.protocols import RewardScore, ScoredPrompt
from tunectl.training.reward.reward_artifacts import Ensemble, RewardFacts
from tunectl.training.rl.rl_artifacts import AlignResultRecord
from tunectl.training.rl.rl_types import ValidationPoint

ROOT = Path(__file__).parents[2]
PROFILE = HardwareProfile(
    device="cpu", threads=1, dtype="float32", train_batch_tokens=64, generate_batch=4, gradient_checkpointing=False
)
AREAS, FOODS = ["riverside", "city centre"], ["English", "Chinese", "Italian"]


def question(number: int) -> str:
    return f"name[Shop {number}], food[{FOODS[number % 3]}], area[{AREAS[number % 2]}]"


def right(number: int) -> str:
    return f"Shop {number} serves {FOODS[number % 3]} food since {number}, number {number} is in the {AREAS[number % 2]} area."


def forgetful(number: int) -> str:
    """Leaves the area out of two answers in three."""
    return right(number).replace(f"{AREAS[number % 2]} area", "best part") if number % 3 else right(number)


class ChatMl:
    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False, tools=()) -> str:
        text = "".join(f"<s>{message.role}\n{message.content}<e>\n" for message in messages)
        return text + ("<s>assistant\n" if add_generation_prompt else "")


class Fake:
    """Base babbles; sft and align answer as ``told``."""

    context = 4000
    told: ClassVar = {"sft": forgetful, "align": right}

    def __init__(self, folder: Path, adapter: Path | None) -> None:
        self.writer = self.told.get(adapter.name) if adapter is not None else None

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        return [len(prompt.split()) for prompt in prompts]

    def answer(self, requests: Sequence[GenerationPrompt], how, *, seed: int, label: str) -> list[GeneratedText]:
        return [self._reply(request) for request in requests]

    def _reply(self, request: GenerationPrompt) -> GeneratedText:
        number = int(request.prompt.rsplit("name[Shop ", 1)[1].split("]")[0])
        text = self.writer(number) if self.writer else "Come and visit us today, you will love it here!"
        return GeneratedText(
            text, 9, len(text.split()), 0.01, True, tuple(LogProb(-9.0, 10) for _ in request.references)
        )

    def close(self) -> None:
        pass


class Regretful(Fake):
    """As ``Fake``, but aligning made it worse."""

    told: ClassVar = {"sft": right, "align": forgetful}


class Judge:
    """Likes answers that name the area."""

    opened: ClassVar[dict[str, object]] = {}
    closed = 0

    def __init__(self, **words: object) -> None:
        Judge.opened = words

    def score(self, prompts: Sequence[ScoredPrompt], answers: Sequence[str]) -> list[RewardScore]:
        assert all(prompt.messages[-1].content.startswith("name[Shop ") for prompt in prompts)
        return [RewardScore(float("area" in answer), 0.0) for answer in answers]

    def close(self) -> None:
        Judge.closed += 1


def tools(model: type = Fake) -> evaluation.EvaluationBackend:
    return evaluation.EvaluationBackend(
        open=model,
        prompter=lambda folder, adapter: FewShotRenderer(ChatMl(), "<e>"),
        tools=evaluation.tools(),
        signature="fake",
        refuse_bad_schema=json_validation.check_schema,
        ask=None,
        reward=Judge,
    )


def settings(**changes: object) -> EvaluateStage:
    values = yaml.safe_load((ROOT / "conf/evaluate/default.yaml").read_text())
    more = yaml.safe_load((ROOT / "conf/evaluate/e2e.yaml").read_text())
    values |= {"slots": more["slots"], "aligned": values["aligned"] | more["aligned"]}
    values |= {"prompts": None, "safety": None, "latency_inputs": 0}
    values["gate"]["resamples"] = 200
    return EvaluateStage(project="shops", seed=7, hardware=PROFILE, evaluate={**values, **changes})


def aligned(**changes: object) -> dict[str, object]:
    return settings().evaluate.aligned.model_dump() | changes


def write_contract(folder: Path, weights: str = "a" * 64) -> None:
    end = model_spec.SpecialToken("<e>", 2)
    made = model_spec.ModelSpec("tiny", "r1", weights, "b" * 64, end, None, end, end, None, None, 10, 512)
    model_spec.save(made, folder)


def accurate(*ends: float | None) -> dict[str, object]:
    """What the reward stage says of a judge."""
    figure, other = dict(zip(("value", "low", "high"), ends, strict=True)), {"value": 0.1, "low": None, "high": None}
    return {"pairs": 300, "prompts": 60, "accuracy": figure, "log_loss": other, "ece": other, "bins": []}


def accuracies(judge: dict[str, object] | None) -> dict[str, object]:
    """What evaluate reads of the reward stage's results."""
    return {"judge": judge, "test": accurate(0.9, 0.85, 0.94)}


def look(step: int, **changes: object) -> ValidationPoint:
    """A validation of a policy whose reward rises."""
    values = {
        "step": step, "reward": 0.1 * step, "reward_low": 0.08 * step, "reward_high": 0.12 * step, "metric": 50.0,
        "metric_change": 0.0, "metric_low": -1.0, "metric_high": 1.0, "kl": 0.3 * step, "length": 20.0, "repetition": 0.0,
        "spread": 0.5, "truncated": 0.0, "within": True,
    }  # fmt: skip
    return ValidationPoint(**{**values, **changes})


def write_run(folder: Path, **changes: object) -> None:
    """What align leaves of a run of six steps."""
    values = {
        "method": "rloo", "steps": 6, "planned_steps": 6, "best_step": 6, "stopped": None, "answers": 48, "inputs": 40,
        "trainable": 9, "metric": "chrf", "validation": [look(0), look(6)], "settings": {"steps": 6, "learning_rate": 1e-4},
        "rewards": {"reward_model": 1.0},
    }  # fmt: skip
    atomic_io.write_json(folder / "align.json", AlignResultRecord(**{**values, **changes}))
    columns = "step,loss,learning_rate,reward,reward_spread,kl,length,truncated,completions_crc32"
    atomic_io.write_text(
        folder / "history.csv", f"{columns}\n1,0.1,1e-4,0.1,0.5,0.0,20,0.25,1\n2,0.1,1e-4,0.2,0.7,0.4,20,0.0,2\n"
    )


@pytest.fixture
def inputs(tmp_path: Path) -> evaluate.Inputs:
    folders = {name: tmp_path / name for name in ("model", "cpt", "split", "sft", "reward", "align")}
    for folder in folders.values():
        folder.mkdir()
    for name in ("model", "sft", "align"):
        write_contract(folders[name])
    atomic_io.write_json(folders["cpt"] / "passed_through.json", {"reason": "cpt is none"})
    (folders["reward"] / "judge").mkdir()
    atomic_io.write_json(folders["reward"] / "results.json", accuracies(accurate(0.86, 0.8, 0.91)))
    members = Ensemble([7], ["f" * 64], [0.0], 2.0, 90, 40)
    atomic_io.write_json(
        folders["reward"] / "reward.json", RewardFacts("a" * 64, "s" * 64, "b" * 64, 400, members, None, 9, 300)
    )
    write_run(folders["align"])
    source = Source("shops.csv", 1)
    for part, numbers in {"train": range(40), "validation": range(40, 52), "test": range(52, 112)}.items():
        rows = [
            Example(f"e{n}", source, [Message("user", question(n))], [ReferenceAnswer(right(n), source)], split=part)
            for n in numbers
        ]
        atomic_io.write_rows(folders["split"] / f"{part}.jsonl", rows)
    return evaluate.Inputs(**folders)


@pytest.fixture
def outputs(tmp_path: Path) -> evaluate.Outputs:
    made = evaluate.Outputs(artifact=tmp_path / "evaluate", plots=tmp_path / "plots")
    made.artifact.mkdir()
    made.plots.mkdir()
    return made


def found_in(outputs: evaluate.Outputs) -> results.Results:
    return results.load(outputs.artifact / "results.json")


def test_the_aligned_model_is_a_column_and_wins(inputs, outputs):
    metrics = evaluate.run(settings(), inputs, outputs, backend=tools())
    found = found_in(outputs)
    assert [system.name for system in found.systems] == ["base", "nearest", "tuned", "aligned"]
    assert found.system("tuned").scores["slot_error"].value == pytest.approx(100 * 40 / 180)
    assert found.system("aligned").scores["slot_error"].value == 0
    fall = found.difference("tuned", "slot_error", system="aligned")
    assert fall.value == pytest.approx(-100 * 40 / 180)
    assert fall.high < 0
    assert found.verdict.passed
    assert found.verdict.verdict == "tuned_better"
    assert found.verdict.aligned.verdict == "aligned_better"
    assert found.verdict.aligned.reason.startswith("Aligned is better than tuned (Slot errors -22.2, interval -")
    assert found.verdict.reason.endswith(found.verdict.aligned.reason)
    assert (metrics.aligned, metrics.aligned_gain) == ("aligned_better", pytest.approx(-100 * 40 / 180))
    assert metrics.win_rates == {"reward": pytest.approx(50 / 60), "slots": pytest.approx(50 / 60)}


def test_the_reward_judge_is_loaded_apart_and_given_back(inputs, outputs):
    before = Judge.closed
    evaluate.run(settings(), inputs, outputs, backend=tools())
    judge = next(one for one in found_in(outputs).win_rates if one.judge == "reward")
    assert Judge.opened == {
        "base": inputs.model, "sft": inputs.sft, "reward": inputs.reward, "part": "judge", "profile": PROFILE,
    }  # fmt: skip
    assert Judge.closed == before + 1
    assert (judge.wins, judge.ties, judge.losses, judge.pairs) == (40, 20, 0, 60)
    assert judge.low > 0.5
    assert judge.note == "it is right on 86.0 % (80.0 to 91.0) of 300 held-out pairs"
    assert f"Reward judge: {judge.note}." in (outputs.artifact / "report.html").read_text()


def test_judges_that_said_nothing_say_why(inputs, outputs):
    (inputs.reward / "judge").rmdir()
    evaluate.run(settings(), inputs, outputs, backend=tools())
    assert {one.judge: one.absent for one in found_in(outputs).win_rates if one.absent} == {
        "reward": "no second reward model was trained to judge (reward.evaluation_model is null)",
        "checks": "evaluate.checks is empty",
        "llm": "evaluate.judge is null",
        "people": "evaluate.aligned.human_judgments_dir is null",
    }


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("passed_through.json", {"reason": "reward is none"}, "there is no reward model (reward: none)"),
        (
            "results.json",
            accuracies(None),
            "no second reward model was trained to judge (reward.evaluation_model is null)",
        ),
        (
            "results.json",
            accuracies(accurate(0.55, 0.49, 0.61)),
            "it is right on 55.0 % (49.0 to 61.0) of 300 held-out pairs, which may be chance",
        ),
        (
            "results.json",
            accuracies(accurate(1.0, None, None)),
            "it is right on 100.0 % of 300 held-out pairs, which may be chance",
        ),
    ],
)
def test_a_reward_model_that_knows_nothing_judges_nothing(inputs, outputs, name, value, why):
    atomic_io.write_json(inputs.reward / name, value)
    metrics = evaluate.run(settings(aligned=aligned(metric="win_rate")), inputs, outputs, backend=tools())
    found = found_in(outputs)
    assert found.win_rates[0].absent == why
    assert metrics.aligned == "not_enough_evidence"
    assert found.verdict.aligned.reason == (
        f"Not enough evidence about aligned: the reward judge gave no verdict: {why}."
    )


def test_a_worse_aligned_model_fails_the_gate(inputs, outputs):
    metrics = evaluate.run(settings(), inputs, outputs, backend=tools(Regretful))
    found = found_in(outputs)
    assert (metrics.passed, metrics.verdict, metrics.aligned) == (False, "tuned_better", "aligned_worse")
    assert json.loads((outputs.artifact / "verdict.json").read_text())["passed"] is False
    assert " Aligned is worse than tuned (Slot errors +22.2, interval +" in found.verdict.reason
    assert "worse" in (outputs.artifact / "report.html").read_text()


def test_a_gain_that_costs_too_much_is_worse(inputs, outputs):
    class Terse(Fake):
        told: ClassVar = {"sft": forgetful, "align": lambda n: f"Shop {n}: {FOODS[n % 3]}, {AREAS[n % 2]}."}

    evaluate.run(settings(), inputs, outputs, backend=tools(Terse))
    assert found_in(outputs).verdict.aligned.reason.startswith(
        "Aligned is worse than tuned: significantly worse in BLEU than max_regression allows (Slot errors -22.2, "
    )


def test_without_align_nothing_is_said_about_it(inputs, outputs):
    atomic_io.write_json(inputs.align / "passed_through.json", {"reason": "align is none"})
    metrics = evaluate.run(settings(), inputs, outputs, backend=tools())
    found = found_in(outputs)
    assert [system.name for system in found.systems] == ["base", "nearest", "tuned"]
    assert (found.win_rates, found.verdict.aligned, metrics.aligned, metrics.win_rates) == ([], None, None, {})
    assert found.slots is not None


def test_the_win_rate_can_decide(inputs, outputs):
    evaluate.run(settings(aligned=aligned(metric="win_rate")), inputs, outputs, backend=tools())
    assert found_in(outputs).verdict.aligned.reason.startswith("Aligned is better than tuned (Win rate 83 %, interval ")


def test_an_aligned_adapter_of_another_base_is_refused(inputs, outputs):
    write_contract(inputs.align, weights="c" * 64)
    with pytest.raises(ArtifactError) as caught:
        evaluate.run(settings(), inputs, outputs, backend=tools())
    assert caught.value.message == (
        f"{inputs.align} does not fit {inputs.model}: it was trained with the weights cccccccccccc…, not aaaaaaaaaaaa…"
    )


def test_the_language_model_is_asked_in_both_positions(inputs, outputs):
    def ask(talks):
        return ["[[A]]" for _ in talks]

    judge = {
        "base_url": "http://127.0.0.1:1/v1", "model": "big", "api_key_env": None, "question": "Is all there?",
        "inputs": 30, "timeout_seconds": 1, "concurrency": 1,
    }  # fmt: skip
    backend = dataclasses.replace(tools(), ask=ask)
    evaluate.run(settings(judge=judge), inputs, outputs, backend=backend)
    one = next(one for one in found_in(outputs).win_rates if one.judge == "llm")
    assert (one.pairs, one.wins, one.losses, one.ties, one.rate) == (30, 0, 0, 30, 0.5)
    assert 0 < one.flips < 30, "equal answers are ties without a question"


def test_people_are_counted_where_they_judged_these_systems(inputs, outputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "judgments"
    with annotation_store.open_store(folder) as opened:
        for number in range(12):
            systems = ["align", "sft"] if number % 2 else ["sft", "align"]
            opened.add([_asked(number, systems if number else ["sft", "sft"])])
            choice = "both_good" if number == 1 else "first" if number % 2 else "second"
            opened.write(
                annotation_store.AnnotationEvent(
                    f"s{number}", f"q{number}", "ann", "2026-11-25T00:00:00Z", choice, 0, 2.0
                )
            )
    evaluate.run(settings(aligned=aligned(human_judgments_dir="judgments")), inputs, outputs, backend=tools())
    one = next(one for one in found_in(outputs).win_rates if one.judge == "people")
    assert (one.pairs, one.wins, one.ties, one.losses) == (11, 10, 1, 0)


def _asked(number: int, systems: list[str]) -> annotation_store.AnnotationTask:
    messages = [Message("user", question(number))]
    return annotation_store.AnnotationTask(
        f"q{number}", f"p{number}", Source("split", number), messages, [f"a {number}", f"b {number}"], systems
    )


def test_a_store_that_is_not_there_is_refused(inputs, outputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        evaluate.run(settings(aligned=aligned(human_judgments_dir="nobody")), inputs, outputs, backend=tools())
    assert caught.value.message == "evaluate.aligned.human_judgments_dir = nobody: that folder holds no judgments"


def test_answers_that_aligning_changed_most_are_shown(inputs, outputs):
    evaluate.run(settings(), inputs, outputs, backend=tools())
    found = found_in(outputs)
    won = [case for case in found.cases if case.why == "aligned_won"]
    assert len(won) == 5
    assert all(case.gain > 0 and case.answers["aligned"] != case.answers["tuned"] for case in won)
    assert [case for case in found.cases if case.why == "aligned_lost"] == []
    assert "Where aligning won most" in (outputs.artifact / "report.html").read_text()
    assert summary.win_lines(found)[0].startswith("aligned against tuned, reward judge: 83 % of 60 pairs (")


def test_slots_are_shown_by_attribute_and_size(inputs, outputs):
    evaluate.run(settings(), inputs, outputs, backend=tools())
    report = found_in(outputs).slots
    area = next(part for part in report.parts if part.attribute == "area")
    assert area.stated == 60
    assert (area.systems["tuned"].missing, area.systems["tuned"].right) == (40, 20)
    assert [(part.value, part.items) for part in report.sizes] == [("3", 60)]
    assert report.sizes[0].aligned.value == pytest.approx(-100 * 40 / 180)
    assert report.cases == [], "the aligned model made no error"


def test_everything_is_written_and_the_page_shows_it(inputs, outputs):
    evaluate.run(settings(), inputs, outputs, backend=tools())
    assert {path.name for path in outputs.plots.iterdir()} == {
        "scores.csv", "differences.csv", "win_rates.csv", "slots.csv",
    }  # fmt: skip
    row = json.loads((outputs.artifact / "answers.jsonl").read_text().splitlines()[0])
    assert list(row["answers"]) == ["base", "nearest", "tuned", "aligned"]
    page = (outputs.artifact / "report.html").read_text()
    for words in (
        "Aligned is better than tuned",
        "Win rate",
        "Slot errors",
        "Reward judge",
        "aligned \N{MINUS SIGN} tuned",
    ):
        assert words in page, words
    assert "<script" not in page


def test_the_same_seed_gives_the_same_bytes(inputs, outputs, tmp_path):
    evaluate.run(settings(), inputs, outputs, backend=tools())
    again = evaluate.Outputs(artifact=tmp_path / "again", plots=tmp_path / "again_plots")
    again.artifact.mkdir()
    again.plots.mkdir()
    evaluate.run(settings(), inputs, again, backend=tools())
    for name in ("results.json", "answers.jsonl", "report.html", "verdict.json"):
        assert (outputs.artifact / name).read_bytes() == (again.artifact / name).read_bytes()


class Fooled(Judge):
    """The members of the reward model like answers that leave the area out; the judge likes those that name it."""

    parts: ClassVar[list[str]] = []

    def __init__(self, **words: object) -> None:
        self.members = words["part"] == "members"
        Fooled.parts.append(str(words["part"]))

    def score(self, prompts: Sequence[ScoredPrompt], answers: Sequence[str]) -> list[RewardScore]:
        return [RewardScore(float(("area" in answer) != self.members), 0.0) for answer in answers]


def test_where_aligning_gains_nothing_the_report_says_what_it_looks_like(inputs, outputs):
    Fooled.parts.clear()
    evaluate.run(settings(), inputs, outputs, backend=dataclasses.replace(tools(Regretful), reward=Fooled))
    found = found_in(outputs)
    assert Fooled.parts == ["judge", "members"]
    facts, aligned_verdict = found.alignment, found.verdict.aligned
    assert (facts.run.kl, facts.run.rise, facts.run.reward_spread, facts.run.truncated) == (
        pytest.approx(1.8), pytest.approx(0.6), pytest.approx(0.6), pytest.approx(0.125),
    )  # fmt: skip
    reward = facts.reward
    assert (reward.judge, reward.wins.value, reward.own_accuracy.value, reward.own_accuracy.pairs) == (
        "reward", pytest.approx(50 / 60), 0.0, 40,
    )  # fmt: skip
    assert reward.own_accuracy.high < 0.1
    assert reward.expected == pytest.approx(0.9 * 0.86 + 0.1 * 0.14)
    assert [cause.name for cause in aligned_verdict.causes] == ["reward_model_wrong", "costs_too_much"]
    cause = aligned_verdict.causes[0]
    assert "orders the two as the reward judge does on 0 % (0 to 9) of 40; 79 % was to be expected" in cause.finding
    assert json.loads((outputs.artifact / "verdict.json").read_text())["aligned"]["causes"][0]["name"] == cause.name
    page = (outputs.artifact / "report.html").read_text()
    assert "Why aligning may gain nothing" in page
    assert "79 % was to be expected" in page
    assert summary.cause_lines(found)[0] == f"why aligned may gain nothing: {cause.finding} What to try: {cause.advice}"


def test_where_the_gain_is_sure_no_cause_is_named_and_the_reward_model_is_not_loaded(inputs, outputs):
    Fooled.parts.clear()
    evaluate.run(settings(), inputs, outputs, backend=dataclasses.replace(tools(), reward=Fooled))
    found = found_in(outputs)
    assert (found.verdict.aligned.verdict, found.verdict.aligned.causes, found.alignment) == (
        "aligned_better",
        [],
        None,
    )
    assert Fooled.parts == ["judge"]
    assert "Why aligning may gain nothing" not in (outputs.artifact / "report.html").read_text()


def test_rules_judge_the_reward_model_where_there_is_no_second_one(inputs, outputs):
    (inputs.reward / "judge").rmdir()
    evaluate.run(settings(), inputs, outputs, backend=dataclasses.replace(tools(Regretful), reward=Fooled))
    reward = found_in(outputs).alignment.reward
    assert (reward.judge, reward.own_accuracy.value, reward.expected) == ("slots", 0.0, pytest.approx(0.9))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"rewards": {"length": 1.0}}, "align.rewards has no reward_model"),
        ({"method": "dpo", "rewards": {}}, "dpo learns from judgments, not from a reward model"),
    ],
)
def test_a_policy_that_learned_from_no_reward_model_has_none_measured(inputs, outputs, changes, why):
    write_run(inputs.align, **changes)
    Fooled.parts.clear()
    evaluate.run(settings(), inputs, outputs, backend=dataclasses.replace(tools(Regretful), reward=Fooled))
    facts = found_in(outputs).alignment
    assert (facts.reward, facts.reward_absent, Fooled.parts) == (None, why, ["judge"])
    assert why in (outputs.artifact / "report.html").read_text()


def test_of_a_run_that_kept_the_weights_of_sft_the_best_later_look_counts(inputs, outputs):
    looks = [
        look(0),
        look(3, within=False, metric_change=-4.0, metric_low=-6.0, metric_high=-2.0),
        look(6, reward=0.01),
    ]
    write_run(inputs.align, best_step=0, validation=looks)
    evaluate.run(settings(), inputs, outputs, backend=tools(Regretful))
    found = found_in(outputs)
    assert found.alignment.run.look_step == 3
    assert "chrf moved by -4.0 (-6.0 to -2.0) at step 3" in found.verdict.aligned.causes[0].finding


def test_the_real_reward_model_scores_the_answers_of_both_models(tiny_model, inputs, outputs, tmp_path):
    start = tiny_policies.build_policy(tiny_model, tmp_path / "policy")
    reward = tiny_policies.build_reward(start, tmp_path / "fit")
    atomic_io.write_json(reward / "results.json", accuracies(None))
    inputs = dataclasses.replace(inputs, model=start[0], sft=start[1], reward=reward)
    model_spec.save(model_spec.load(start[0]), inputs.align)
    cfg = settings()
    cfg = cfg.model_copy(update={"hardware": PROFILE.model_copy(update={"train_batch_tokens": 2048})})
    backend = dataclasses.replace(tools(Regretful), reward=evaluation.reward_model)
    evaluate.run(cfg, inputs, outputs, backend=backend)
    found = found_in(outputs)
    reward = found.alignment.reward
    assert (reward.judge, reward.ensemble_size, reward.wins.pairs, reward.member_spread) == ("slots", 1, 60, 0.0)
    assert 0 < reward.own_accuracy.pairs <= 40
    assert 0 <= reward.own_accuracy.low <= reward.own_accuracy.value <= reward.own_accuracy.high <= 1
    assert 1 <= len(found.verdict.aligned.causes) <= 3

"""The align stage with a trainer that only looks at what it is given."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from tunectl.artifacts import atomic_io
from tunectl.artifacts.records import AnnotationMetadata, Example, Message, PreferencePair, ReferenceAnswer, Source
from tunectl.artifacts.row_counts import load
from tunectl.backends.wiring.align import AlignBackend, build_metric
from tunectl.chat import model_spec
from tunectl.config.schema.align import AlignStage, CheckMeasure, ScoreMeasure
from tunectl.core.errors import ArtifactError, ConfigError, DataError, GateError, UsageError
from tunectl.data.split.groups import prompt_key
from tunectl.pipeline.stages import align
from tunectl.training.reward.protocols import RewardScore
from tunectl.training.rl.rl_artifacts import AlignResultRecord
from tunectl.training.rl.rl_types import RlResult, Sample, StepMetrics, ValidationPoint

CONF = Path(__file__).parents[2] / "conf"
FIRST = ValidationPoint(0, 0.1, 0.1, 0.1, 50.0, 0.0, 0.0, 0.0, 0.0, 9.0, 0.0, 1.0, 0.0, within=True)
LAST = ValidationPoint(4, 0.9, 0.7, 1.1, 49.0, -1.0, -2.0, 0.1, 3.5, 8.0, 0.0, 0.8, 0.0, within=True)


def stage(method="rloo", **changes):
    section = yaml.safe_load((CONF / "align" / f"{method}.yaml").read_text())
    section |= changes
    profile = yaml.safe_load((CONF / "hardware" / "cpu.yaml").read_text())
    return AlignStage.model_validate({"align": section, "seed": 3, "hardware": profile, "project": "test"})


@dataclass
class Fake:
    """Trainer and reward model in one."""

    calls: list = field(default_factory=list)
    closed: bool = False
    stopped: str | None = None

    def fit(self, plan, *, model, sft, data, judges, out, work):
        self.calls.append((plan, model, sft, data, judges))
        work.mkdir(parents=True)
        (out / "adapter_model.safetensors").write_bytes(b"weights")
        return RlResult(
            steps=4,
            planned_steps=150,
            best_step=4,
            stopped=self.stopped,
            answers=256,
            seconds={"generate": 4.04, "learn": 8.0, "validation": 2.0},
            trainable=77,
            history=(
                StepMetrics(1, 0.5, 1e-5, 0.1, 0.2, 0.0, 9.0, 0.0, 3.0),
                StepMetrics(4, 0.4, 1e-5, 0.8, 0.2, 3.0, 8.0, 0.0, 5.0),
            ),
            validation=(FIRST, LAST),
            samples=(Sample(0, "v", "Say v", "v", 0.1, {"reward_model": 0.1}, ["v"]),),
        )

    def score(self, prompts, answers):
        return [RewardScore(0.5, 0.0)] * len(answers)

    def close(self):
        self.closed = True

    @property
    def tools(self):
        return AlignBackend(
            trainer=lambda settings: self,
            reward=lambda base, sft, reward, profile: self,
            checked=lambda *_: 1.0,
            measure=build_metric,
            page=lambda project, settings, aligned: f"{project} {settings.method} {aligned.best_step}",
        )


def example(name, *, answers=("one",), long=False):
    source = Source("data.csv", 1)
    words = f"Say {name}" + " and on" * (100 if long else 0)
    return Example(name, source, [Message("user", words)], [ReferenceAnswer(text, source) for text in answers])


@pytest.fixture
def given(tmp_path, tiny_model):
    folders = {name: tmp_path / name for name in ("split", "cpt", "sft", "preferences", "reward")}
    atomic_io.write_rows(folders["split"] / "train.jsonl", [example("a"), example("b"), example("c", long=True)])
    atomic_io.write_rows(
        folders["split"] / "validation.jsonl", [example("v", answers=("v", "w")), example("x", answers=())]
    )
    atomic_io.write_json(folders["cpt"] / "passed_through.json", {"reason": "off"})
    atomic_io.write_json(folders["preferences"] / "passed_through.json", {"reason": "off"})
    atomic_io.write_json(
        folders["reward"] / "verdict.json", {"passed": True, "verdict": "knows_preferences", "reason": "Good."}
    )
    folders["sft"].mkdir()
    model_spec.save(model_spec.load(tiny_model), folders["sft"])
    for name in ("out", "plots"):
        (tmp_path / name).mkdir()
    return align.Inputs(tiny_model, **folders), align.Outputs(tmp_path / "out", tmp_path / "plots", tmp_path / "work")


def test_what_the_trainer_is_given_and_what_is_left(given):
    inputs, outputs = given
    fake = Fake()
    found = align.run(stage(max_rejected_share=0.5), inputs, outputs, tools=fake.tools)
    plan, model, sft, data, judges = fake.calls[0]
    assert (model, sft, plan.seed, plan.settings.method) == (inputs.model, inputs.sft, 3, "rloo")
    assert [asked.id for asked in data.prompts] == ["a", "b"]
    assert data.prompts[0].text == "<|im_start|>user\nSay a<|im_end|>\n<|im_start|>assistant\n"
    assert data.prompts[0].messages == (Message("user", "Say a"),)
    assert len(data.prompts[0].ids) == 24
    assert [(asked.id, asked.references, asked.last_message) for asked in data.validation] == [
        ("v", ("v", "w"), "Say v")
    ]
    assert (data.judged, data.held_out) == ((), ())
    assert judges.measure.name == "chrf"
    assert fake.closed
    account = load(outputs.artifact)
    assert (account.rows_in, account.kept, account.rejected) == (3, 2, {"too_long": 1})
    assert model_spec.load(outputs.artifact) == model_spec.load(inputs.sft)
    facts: AlignResultRecord = atomic_io.read_json(outputs.artifact / "align.json", AlignResultRecord)
    assert (facts.best_step, facts.inputs, facts.metric, facts.validation) == (4, 2, "chrf", [FIRST, LAST])
    assert facts.rewards == {"reward_model": 1.0}
    assert (facts.settings["num_generations"], facts.settings["beta"]) == (
        plan.settings.num_generations,
        plan.settings.beta,
    )
    assert "epochs" not in facts.settings
    assert (outputs.artifact / "history.csv").read_text() == (
        "step,loss,learning_rate,reward,reward_spread,kl,length,truncated,completions_crc32\n"
        "1,0.5,1e-05,0.1,0.2,0.0,9.0,0.0,\n4,0.4,1e-05,0.8,0.2,3.0,8.0,0.0,\n"
    )
    assert (outputs.plots / "history.csv").read_text().splitlines()[1] == "1,0.5,1e-05,0.1,0.2,0.0,9.0,0.0,3.0"
    assert (outputs.plots / "validation.csv").read_text() == (outputs.artifact / "validation.csv").read_text()
    assert (outputs.artifact / "report.html").read_text() == "test rloo 4"
    assert len(list(atomic_io.read_rows(outputs.artifact / "samples.jsonl", Sample))) == 1
    assert not outputs.work.exists()
    assert (found.reward_before, found.reward, found.metric_before, found.metric_after) == (0.1, 0.9, 50.0, 49.0)
    assert (found.seconds_a_step, found.seconds_by_part["generate"], found.rejected) == (4.0, 4.0, 1)


def test_switched_off_passes_on(given):
    inputs, outputs = given
    found = align.run(stage("none"), inputs, outputs, tools=Fake().tools)
    assert atomic_io.read_json(outputs.artifact / "passed_through.json", dict) == {"reason": "align: none"}
    assert (found.method, found.steps, found.reward) == ("none", 0, None)
    assert (outputs.plots / "validation.csv").read_text().startswith("step,reward,")
    assert (outputs.plots / "history.csv").read_text() == (
        "step,loss,learning_rate,reward,reward_spread,kl,length,truncated,seconds\n"
    )


def test_the_further_trained_base_is_taken_where_there_is_one(given, tiny_model, tmp_path):
    import shutil

    inputs, outputs = given
    other = tmp_path / "adapted"
    shutil.copytree(tiny_model, other)
    fake = Fake()
    align.run(stage(max_rejected_share=1.0), replace(inputs, cpt=other), outputs, tools=fake.tools)
    assert fake.calls[0][1] == other


def test_only_judged_inputs_where_asked(given):
    inputs, outputs = given
    (inputs.preferences / "passed_through.json").unlink()
    asked = example("b")
    pair = PreferencePair(
        "p",
        prompt_key(asked),
        asked.messages,
        [Message("assistant", "y")],
        [Message("assistant", "n")],
        [AnnotationMetadata(asked.source)],
    )
    atomic_io.write_rows(inputs.preferences / "train.jsonl", [pair])
    atomic_io.write_rows(inputs.preferences / "labeled_completions.jsonl", [])
    fake = Fake()
    align.run(stage(prompts="preferred"), inputs, outputs, tools=fake.tools)
    assert [question.id for question in fake.calls[0][3].prompts] == ["b"]


def test_inputs_are_drawn_with_the_seed(given):
    inputs, outputs = given
    atomic_io.write_rows(inputs.split / "train.jsonl", [example(str(number)) for number in range(20)])
    fake = Fake()
    for seed in (3, 3, 4):
        cfg = stage(max_inputs=5).model_copy(update={"seed": seed})
        align.run(cfg, inputs, outputs, tools=fake.tools)
    first, again, other = ([asked.id for asked in call[3].prompts] for call in fake.calls)
    assert len(first) == 5
    assert first == again != other


def refused(given, cfg, kind):
    inputs, outputs = given
    fake = Fake()
    with pytest.raises(kind) as caught:
        align.run(cfg, inputs, outputs, tools=fake.tools)
    assert fake.calls == []
    return caught.value


def test_nothing_learns_from_a_reward_model_that_knows_nothing(given):
    atomic_io.write_json(
        given[0].reward / "verdict.json",
        {
            "passed": False,
            "verdict": "no_better_than_chance",
            "reason": "50 %.",
            "helps": ["More pairs.", "Less noise."],
        },
    )
    error = refused(given, stage(), GateError)
    assert error.message == ("align refuses a reward model whose verdict is no_better_than_chance: 50 %.")
    assert error.hint == "what would help: More pairs. Less noise. Or switch align off: align=none"
    assert error.exit_code == 3


def test_a_verdict_of_no_is_no_matter_where_no_reward_model_is_asked(given):
    atomic_io.write_json(given[0].reward / "verdict.json", {"passed": False, "verdict": "x", "reason": "y"})
    rewards = [
        {
            "method": "length",
            "weight": 1.0,
            "normalize": "none",
            "clip": None,
            "min_tokens": 1,
            "max_tokens": 9,
            "soft": 5,
        }
    ]
    inputs, outputs = given
    fake = Fake()
    align.run(stage(rewards=rewards, max_rejected_share=1.0), inputs, outputs, tools=fake.tools)
    assert len(fake.calls) == 1


def test_a_reward_model_that_is_switched_off(given):
    atomic_io.write_json(given[0].reward / "passed_through.json", {"reason": "off"})
    error = refused(given, stage(), UsageError)
    assert error.message == "align.rewards names reward_model, but there is none (reward: none)"
    assert error.hint == "train one: reward=lora, or declare other rewards"


def test_a_reward_folder_of_another_base_is_refused_by_whoever_reads_it(given):
    inputs, outputs = given

    def other(base, sft, reward, profile):
        raise ArtifactError(f"{reward} does not fit {base}", hint="rebuild it")

    fake = Fake()
    with pytest.raises(ArtifactError, match="does not fit"):
        align.run(stage(max_rejected_share=1.0), inputs, outputs, tools=replace(fake.tools, reward=other))
    assert fake.calls == []


def test_an_sft_adapter_of_another_base(given):
    from msgspec.structs import replace as changed

    sft = given[0].sft
    model_spec.save(changed(model_spec.load(sft), template_sha256="1" * 64), sft)
    error = refused(given, stage(), ArtifactError)
    assert "it was trained with the chat template 111111111111…" in error.message


def test_no_inputs(given):
    atomic_io.write_rows(given[0].split / "train.jsonl", [])
    error = refused(given, stage(), DataError)
    assert error.message == "align: the train split has no input that leaves room for an answer"
    error = refused(given, stage(prompts="preferred"), DataError)
    assert error.message == "align: the train split has no input that was judged that leaves room for an answer"
    assert error.hint == "align.prompts=train takes all inputs; tunectl data show prints them"


def test_nothing_to_watch(given):
    atomic_io.write_rows(given[0].split / "validation.jsonl", [example("x", answers=())])
    error = refused(given, stage(), DataError)
    assert error.message == (
        "align: the validation split has no input with a reference answer, so nothing can be validated"
    )


def test_inputs_that_leave_no_room_cannot_be_watched(given):
    atomic_io.write_rows(given[0].split / "validation.jsonl", [example("v", long=True)])
    error = refused(given, stage(), DataError)
    assert error.message == (
        "align: none of 1 validation inputs can be answered: they leave no room for an answer of 96 tokens, or are pre-rendered texts that contain the answer"
    )
    assert error.hint == "lower align.max_new_tokens (now 96), or bring shorter inputs"


def test_facts_of_a_field_that_no_input_has(given):
    facts = {"method": "facts", "name": "offer", "fields": ["ofer"], "pattern": None, "ignore_case": True}
    term = {"method": "check", "check": facts, "weight": 1.0, "normalize": "none", "clip": None}
    watch = yaml.safe_load((CONF / "align/rloo.yaml").read_text())["validation"]
    told = " names ofer, but no input has that field; there are: none"
    error = refused(given, stage(rewards=[term], max_rejected_share=1.0), DataError)
    assert error.message == f"align.rewards.offer.fields{told}"
    measure = {"method": "check", "check": facts}
    error = refused(given, stage(max_rejected_share=1.0, validation=watch | {"metric": measure}), DataError)
    assert error.message == f"align.validation.metric.fields{told}"


def test_a_schema_that_is_none(given):
    schema = {"method": "json_schema", "name": "shape", "document": {"type": "whole"}}
    term = {"method": "check", "check": schema, "weight": 1.0, "normalize": "none", "clip": None}
    error = refused(given, stage(rewards=[term]), ConfigError)
    assert error.message.startswith("align.rewards.shape.document is not a JSON Schema: at type: 'whole' is not valid")


def test_a_part_of_the_reward_that_is_declared_twice():
    plain = {"weight": 1.0, "normalize": "none", "clip": None}
    runs = [{**plain, "method": "repetition", "size": size} for size in (2, 4)]
    with pytest.raises(ValidationError, match="rewards names repetition more than once; give it one weight"):
        stage(rewards=runs)
    check = {"method": "regex", "name": "good", "pattern": "good", "expect": "present"}
    checks = [{**plain, "method": "check", "check": check | {"pattern": pattern}} for pattern in ("a", "b")]
    with pytest.raises(ValidationError, match="rewards names check good more than once; give each check its own name"):
        stage(rewards=checks)
    stage(rewards=[checks[0], runs[0]])


def test_too_many_inputs_that_leave_no_room(given):
    inputs, outputs = given
    fake = Fake()
    with pytest.raises(DataError, match=r"align\.max_rejected_share"):
        align.run(stage(), inputs, outputs, tools=fake.tools)
    assert fake.calls == []


def test_measures_of_the_libraries():
    from tunectl.config.schema.evaluate import RegexCheck

    asked = type("Asked", (), {"references": ("a good answer",), "last_message": "Say", "fields": {}})()
    chrf = build_metric(ScoreMeasure(method="score", name="chrf"))
    table = chrf([asked, asked], ["a good answer", "zzz"])
    assert chrf.combine(table[0]) == pytest.approx(100)
    assert chrf.combine(table[1]) == pytest.approx(0)
    check = RegexCheck(method="regex", name="good", pattern="good", expect="present")
    share = build_metric(CheckMeasure(method="check", check=check))
    assert share.name == "check_good"
    assert share.combine(np.asarray(share([asked, asked], ["good", "bad"])).sum(axis=0)) == 50


def test_a_measure_that_the_reward_sees_watches_nothing():
    def check(**changes):
        usual = {"method": "regex", "name": "good", "pattern": "good", "expect": "present"}
        return {"method": "check", "check": usual | changes}

    rewards = [{**check(), "weight": 1.0, "normalize": "none", "clip": None}]
    watch = yaml.safe_load((CONF / "align/rloo.yaml").read_text())["validation"]
    for same in (check(), check(name="another")):
        with pytest.raises(ValidationError) as caught:
            stage(rewards=rewards, validation=watch | {"metric": same})
        assert caught.value.errors()[0]["msg"] == (
            "Value error, validation.metric is the check good, which rewards has too, so it would rise with the reward; "
            "take another one, or {method: score, name: chrf}"
        )
    stage(rewards=rewards, validation=watch | {"metric": check(pattern="bad", expect="absent")})


@pytest.mark.parametrize("method", ["rloo", "grpo", "dpo", "kto", "none"])
def test_every_file_of_conf_is_a_valid_section(method):
    assert stage(method).align.root.method == method

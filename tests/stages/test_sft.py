"""The sft stage with a trainer that only looks at what it is given."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from msgspec.structs import replace
from pydantic import ValidationError

from tunectl.artifacts import atomic_io, privacy_budget
from tunectl.artifacts.privacy_budget import PrivacyBudget
from tunectl.artifacts.records import Example, Message, ReferenceAnswer, Source, Tokens
from tunectl.artifacts.row_counts import load
from tunectl.chat import model_spec
from tunectl.chat.tokenizer import Tokenizer
from tunectl.config.schema.sft import SftStage
from tunectl.core.errors import DataError
from tunectl.pipeline.stages import sft
from tunectl.training.protocols import LogPoint, TrainResult
from tunectl.training.sft.report import TrainingRecord

CONF = Path(__file__).parents[2] / "conf"


def stage(**changes):
    section = yaml.safe_load((CONF / "sft" / "lora.yaml").read_text()) | changes
    profile = yaml.safe_load((CONF / "hardware" / "cpu.yaml").read_text())
    section["learning_rate"] = float(section["learning_rate"])
    return SftStage.model_validate({"sft": section, "seed": 3, "hardware": profile, "project": "test"})


@dataclass
class Fake:
    calls: list = field(default_factory=list)

    def fit(self, plan, *, model, train, validation, out, work):
        self.calls.append((plan, model, train, validation))
        work.mkdir(parents=True)
        (out / "adapter_model.safetensors").write_bytes(b"weights")
        points = (LogPoint(2, 1, 2.0, None, 1e-3, 100.0), LogPoint(4, 1, 1.0, 1.5, 0.0, 100.0))
        return TrainResult(4, 4, 4, 1.5, 3.0, 1000, 2000, 10.0, 77, shared_prompts=True, history=points)


def example(number, *texts, **fields):
    source = Source("data.csv", number)
    return Example(
        f"e{number}",
        source,
        [Message("user", f"Say {number}")],
        [ReferenceAnswer(text, source) for text in texts],
        **fields,
    )


@pytest.fixture
def given(tmp_path, tiny_model):
    split, cpt = tmp_path / "split", tmp_path / "cpt"
    for name, rows in (
        ("train", [example(1, "one", "uno"), example(2, "two", weight=0.5)]),
        ("validation", [example(3, "three")]),
    ):
        atomic_io.write_rows(split / f"{name}.jsonl", rows)
    atomic_io.write_json(cpt / "passed_through.json", {"reason": "off"})
    for name in ("out", "plots"):
        (tmp_path / name).mkdir()
    return sft.Inputs(tiny_model, split, cpt), sft.Outputs(tmp_path / "out", tmp_path / "plots", tmp_path / "work")


def test_rows_account_contract_and_curve(given):
    inputs, outputs = given
    fake = Fake()
    found = sft.run(stage(), inputs, outputs, trainer=fake)
    plan, model, train, validation = fake.calls[0]
    assert (model, plan.seed, plan.project) == (inputs.model, 3, "test")
    assert [len(row.branches) for row in train] == [2, 1]
    assert [row.weight for row in train] == [1.0, 0.5]
    assert len(validation) == 1
    account = load(outputs.artifact)
    assert (account.rows_in, account.kept, account.rejected, account.records_out) == (4, 4, {}, 4)
    assert model_spec.load(outputs.artifact) == model_spec.load(inputs.model)
    assert (outputs.plots / "history.csv").read_text() == (
        "step,epoch,loss,validation_loss,learning_rate,tokens_per_second\n2,1,2.0,,0.001,100.0\n4,1,1.0,1.5,0.0,100.0\n"
    )
    assert (outputs.artifact / "history.csv").read_text() == (
        "step,epoch,loss,validation_loss,learning_rate\n2,1,2.0,,0.001\n4,1,1.0,1.5,0.0\n"
    )
    training: TrainingRecord = atomic_io.read_json(outputs.artifact / "training.json", TrainingRecord)
    assert "".join(token.text for token in training.example if token.trained) == "one<|im_end|>"
    assert "".join(token.text for token in training.example).endswith("assistant\none<|im_end|>")
    assert training.best_validation_loss == found.validation_loss == 1.5
    assert (found.answers, found.tokens_per_second, found.tokens_per_second_apart) == (3, 100.0, 200.0)
    assert not outputs.work.exists()


def _bytes(folder):
    return {path.name: atomic_io.sha256_path(path) for path in sorted(folder.iterdir())}


def test_the_same_seed_gives_the_same_artifact_however_long_it_took(given, tmp_path):
    pytest.importorskip("torch")
    inputs, outputs = given
    small = {"epochs": 1, "lora_rank": 2, "batch_size": 2, "target_modules": ["q_proj"]}
    found = []
    for turn in range(2):
        own = sft.Outputs(tmp_path / f"out{turn}", tmp_path / f"plots{turn}", outputs.work)
        for folder in (own.artifact, own.plots):
            folder.mkdir()
        sft.run(stage(**small), inputs, own)
        found.append(_bytes(own.artifact))
    assert found[0] == found[1]
    assert {"adapter_model.safetensors", "training.json", "history.csv"} <= set(found[0])


def test_the_further_trained_model_is_used_where_there_is_one(given, tiny_model):
    import shutil

    inputs, outputs = given
    shutil.rmtree(inputs.cpt)
    shutil.copytree(tiny_model, inputs.cpt)
    fake = Fake()
    sft.run(stage(), inputs, outputs, trainer=fake)
    assert fake.calls[0][1] == inputs.cpt


def test_a_declared_system_text_is_trained_and_carried_on(given):
    inputs, outputs = given
    fake = Fake()
    sft.run(stage(system="Short."), inputs, outputs, trainer=fake)
    assert model_spec.load(outputs.artifact).system == "Short."
    plain = Fake()
    for name in ("out", "plots"):
        (outputs.artifact.parent / f"{name}2").mkdir()
    sft.run(
        stage(),
        inputs,
        sft.Outputs(outputs.artifact.parent / "out2", outputs.plots.parent / "plots2", outputs.work),
        trainer=plain,
    )
    assert len(fake.calls[0][2][0].prompt.ids) > len(plain.calls[0][2][0].prompt.ids)


def test_a_token_that_the_model_does_not_have_is_rejected_and_named(given, tiny_model):
    inputs, outputs = given
    size = Tokenizer(tiny_model).size
    rows = [
        Example(f"t{index}", Source("ids.jsonl", index), tokens=Tokens([1, last], [1, last]))
        for index, last in enumerate((size - 1, size, 2**40), 1)
    ]
    atomic_io.write_rows(inputs.split / "train.jsonl", rows)
    sft.run(stage(max_rejected_share=0.9), inputs, outputs, trainer=Fake())
    account = load(outputs.artifact)
    assert account.rejected == {"wrong_labels": 2}
    first = account.samples["wrong_labels"][0]
    assert (first.source, first.detail) == (
        Source("ids.jsonl", 2),
        f"input_ids holds {size}; the tokenizer of the model has {size} tokens, so its ids are 0 to {size - 1}",
    )


def test_long_answers_are_rejected_whole_and_named(given):
    inputs, outputs = given
    atomic_io.write_rows(inputs.split / "train.jsonl", [example(1, "one", "x" * 90), example(2, "two")])
    found = sft.run(stage(max_length=60, max_rejected_share=0.5), inputs, outputs, trainer=Fake())
    account = load(outputs.artifact)
    assert account.rejected == {"too_long": 1}
    assert account.samples["too_long"][0].detail == "115 tokens; the limit is 60"
    assert account.samples["too_long"][0].source == Source("data.csv", 1)
    assert (found.rejected, found.answers) == (1, 2)


def test_too_many_long_answers_fail_the_stage(given):
    inputs, outputs = given
    atomic_io.write_rows(inputs.split / "train.jsonl", [example(1, "one", "x" * 90), example(2, "two")])
    with pytest.raises(DataError) as caught:
        sft.run(stage(max_length=60), inputs, outputs, trainer=Fake())
    assert caught.value.message == (
        "sft: 25.0% of 4 rows were rejected; the limit is 5%\n"
        "          1  too_long: first data.csv:1 115 tokens; the limit is 60"
    )
    assert caught.value.hint == "fix the data, or allow more: sft.max_rejected_share=<share from 0 to 1>"


def test_nothing_trained_is_a_reason(given):
    inputs, outputs = given
    from tunectl.artifacts.records import Tokens

    empty = Example("t", Source("data.csv", 9), tokens=Tokens([5, 6], [-100, -100]))
    atomic_io.write_rows(inputs.split / "train.jsonl", [example(1, "one"), empty])
    sft.run(stage(max_rejected_share=0.5), inputs, outputs, trainer=Fake())
    assert load(outputs.artifact).rejected == {"nothing_trained": 1}


def test_the_loss_is_measured_on_as_many_validation_inputs_as_declared(given):
    inputs, outputs = given
    atomic_io.write_rows(
        inputs.split / "validation.jsonl", [example(number, "three", "tres") for number in range(3, 9)]
    )
    drawn = []
    for most in (None, 6, 2, 2):
        fake = Fake()
        sft.run(stage(max_eval_samples=most), inputs, outputs, trainer=fake)
        drawn.append(fake.calls[0][3])
    assert [len(rows) for rows in drawn] == [6, 6, 2, 2]
    assert drawn[2] == drawn[3]
    assert all(row in drawn[0] for row in drawn[2])
    assert (
        load(outputs.artifact).records_out == 3 + 12
    )  # rows that are only left out of the measurement are not rejects


def test_a_drawn_input_has_all_of_its_answers(given):
    inputs, outputs = given
    rows = [example(number, "three", "tres", "drei") for number in range(3, 9)]
    atomic_io.write_rows(inputs.split / "validation.jsonl", rows)
    fake = Fake()
    sft.run(stage(max_eval_samples=2, prefix_sharing=False), inputs, outputs, trainer=fake)
    drawn = [tuple(row.prompt.ids) for row in fake.calls[0][3]]
    assert len(drawn) == 6
    assert {drawn.count(prompt) for prompt in drawn} == {3}


@pytest.mark.parametrize("name", ["train", "validation"])
def test_an_empty_split_is_an_error(given, name):
    inputs, outputs = given
    atomic_io.write_rows(inputs.split / f"{name}.jsonl", [])
    with pytest.raises(DataError) as caught:
        sft.run(stage(), inputs, outputs, trainer=Fake())
    assert caught.value.message == f"sft: the {name} split has no answers to use"


@pytest.mark.parametrize("name", ["lora", "dora", "rslora", "qlora"])
def test_every_group_file_composes_over_lora(name):
    changes = yaml.safe_load((CONF / "sft" / f"{name}.yaml").read_text())
    changes.pop("defaults", None)
    changes.pop("learning_rate", None)
    assert stage(**changes).sft.method == name


def test_an_empty_list_of_targets_is_refused():
    with pytest.raises(ValueError, match="target_modules is an empty list; name at least one layer, or all-linear"):
        stage(target_modules=[])


PRIVATE = {"max_grad_norm": None, "early_stopping": None}


def private(**changes):
    section = yaml.safe_load((CONF / "sft" / "private.yaml").read_text())["privacy"]
    return {"privacy": {**section, "min_units": 2, **changes}, **PRIVATE}


def test_rows_of_a_private_fit_name_their_unit_and_epsilon_is_kept(given):
    inputs, outputs = given
    other = Source("other.csv", 9)
    rows = [example(1, "one", "uno"), example(2, "two")]
    rows.append(
        replace(
            example(3, "three"),
            answers=[ReferenceAnswer("three", Source("data.csv", 3)), ReferenceAnswer("tre", other)],
        )
    )
    atomic_io.write_rows(inputs.split / "train.jsonl", rows)
    budget = PrivacyBudget("source", 2, 7.5, 0.05, 0.9, 1.0, 0.5, 40, "prv")

    class Private(Fake):
        def fit(self, plan, **words):
            return dataclasses.replace(super().fit(plan, **words), privacy=budget)

    fake = Private()
    found = sft.run(stage(**private()), inputs, outputs, trainer=fake)
    plan, _, train, validation = fake.calls[0]
    assert (plan.privacy.target_epsilon, plan.privacy.unit) == (8.0, "source")
    assert [(row.unit, len(row.branches)) for row in train] == [
        ("data.csv", 2),
        ("data.csv", 1),
        ("data.csv", 1),
        ("other.csv", 1),
    ]
    assert [row.unit for row in validation] == [""]
    assert found.epsilon == 7.5
    assert privacy_budget.load(outputs.artifact) == budget


def test_a_plain_fit_leaves_no_privacy_file(given):
    inputs, outputs = given
    found = sft.run(stage(), inputs, outputs, trainer=Fake())
    assert found.epsilon is None
    assert privacy_budget.load(outputs.artifact) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"early_stopping": {"patience": 1, "min_delta": 0.0}}, "early_stopping must be null with privacy: the last weights are kept"),
        ({"max_grad_norm": 1.0}, "max_grad_norm must be null with privacy: privacy.max_grad_norm clips the gradient of each unit"),
        ({"init_adapter": "artifacts/old"}, "init_adapter must be null with privacy: epsilon does not count what it has learned"),
        (private(noise_multiplier=1.0), "give target_epsilon or noise_multiplier, and null for the other"),
        (private(unit="person"), "unit person needs person_field"),
    ],
)  # fmt: skip
def test_settings_that_would_break_the_promise_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        stage(**{**private(), **changes})

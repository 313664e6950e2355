"""The package stage with a trained model and an engine that speak from a table."""

import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from msgspec import structs

from tunectl.artifacts import atomic_io, privacy_budget
from tunectl.artifacts.records import Example, Message, ReferenceAnswer, Source
from tunectl.chat import model_spec as chats
from tunectl.chat.tokenizer import Tokenizer
from tunectl.config.schema.package import PackageStage
from tunectl.core import progress
from tunectl.core.errors import ArtifactError, DataError, UsageError
from tunectl.evaluation.results import AlignedVerdict, AnswerRow, EvalVerdict, Results, Score, System
from tunectl.packaging import serving_contract
from tunectl.packaging.protocols import GreedyOutput, SamplingParams, TeacherForced
from tunectl.packaging.serving_contract import template_of
from tunectl.pipeline.stages import package
from tunectl.registry import release_manifest
from tunectl.registry.release_manifest import BuildFacts
from tunectl.registry.release_store import ReleaseRegistry

CONF = Path(__file__).parents[2] / "conf"
END = 2
BASE, TUNED = [60, 61, 62, END], [50, 51, END]
"""What base and tuned model say to everything; the tuned one says PQ."""


def stage(**changes):
    section = yaml.safe_load((CONF / "package" / "openvino.yaml").read_text()) | {"bento": {"name": "test"}} | changes
    names = ("hardware/cpu", "evaluate/default")
    profile, evaluate = (yaml.safe_load((CONF / f"{name}.yaml").read_text()) for name in names)
    evaluate["gate"]["primary_metric"] = "chrf"
    server = {
        name: yaml.safe_load((CONF / name / "default.yaml").read_text())
        for name in ("serve", "inference_log", "annotate")
    }
    given = {"package": section, "seed": 3, "hardware": profile, "project": "test", "evaluate": evaluate, **server}
    return PackageStage.model_validate(given)


@dataclass
class Fake:
    """Trained model, exporter and engine in one; the engine is off by ``gap`` nats and differs where told."""

    gap: float = 0.01
    alike: bool = False
    differs: bool = False
    gguf_share: float = 1.0
    calls: list = field(default_factory=list)
    says: list = field(default_factory=lambda: TUNED)

    def load_trained_model(self, base, adapter, stops, precision):
        self.calls.append(("trained", base, adapter, stops, precision))
        return _Model(BASE if adapter is None and not self.alike else TUNED)

    def export(self, model, out, *, engine, weights):
        self.calls.append(("export", model, engine, weights))
        atomic_io.write_text(out / "openvino_model.xml", str(model.name))

    def merge(self, model, adapter, out):
        atomic_io.write_text(out / "model.safetensors", "merged")

    def build_bento(self, release, facts, name, out, settings):
        atomic_io.write_text(out / "bento.yaml", f"{name} {settings.serve.port}")

    def export_gguf(self, merged, out, kind, contract):
        atomic_io.write_text(out, kind)
        return self.gguf_share

    def open_release(self, release, stops):
        return _Engine(self, serving_contract.load(release))


@dataclass
class _Model:
    says: list

    def generate(self, prompts, limit):
        ids = self.says[:limit]
        return [GreedyOutput(ids, [-0.5] * len(ids), ids[-1] == END) for _ in prompts]

    def likelihood(self, prompts, answers, of):
        return [[-1.0 if self.says is BASE else -0.5] * len(one) for one in of]

    def close(self):
        self.says = None


@dataclass
class _Engine:
    fake: Fake
    told: serving_contract.ServingContract

    def generate(self, prompts, limit, how=None):
        self.fake.calls.append(("answers", limit, how))
        ids = self.fake.says[:limit]
        return [GreedyOutput(ids, [-0.3] * (len(ids) - 1) + [math.nan], finished=True) for _ in prompts]

    def teacher_force(self, prompts, answers):
        choices = [[9, *one[1:]] if self.fake.differs else list(one) for one in answers]
        return [TeacherForced(one, [-0.5 - self.fake.gap] * (len(one) - 1) + [math.nan]) for one in choices]

    def close(self):
        self.fake.calls.append(("closed",))


def example(name, text="say"):
    source = Source("data.csv", 1)
    return Example(name, source, [Message("user", f"{text} {name}")], [ReferenceAnswer("PQ", source)])


def results(aligned=None, *, passed=True, verdict="tuned_better"):
    systems = [
        System(name, name.title(), {"chrf": Score(50.0, 40.0, 60.0, 2)}) for name in ("base", "tuned", "aligned")
    ]
    said = None if aligned is None else AlignedVerdict(True, aligned, "Because.")
    return Results(
        project="test", seed=3, inputs=2, available=2, skipped={}, primary="chrf", min_difference=1, confidence=0.95,
        resamples=100, units=2, decoding={}, bleu_signature="", systems=systems, differences=[], slices=[], search=None,
        references_seen=None, safety=None, judge=[], cases=[], warnings=[], verdict=EvalVerdict(passed, verdict, "So.", [], said),
    )  # fmt: skip


@pytest.fixture
def given(tmp_path, tiny_model):
    folders = {name: tmp_path / name for name in ("cpt", "split", "sft", "align", "evaluate")}
    for name in ("cpt", "align"):
        atomic_io.write_json(folders[name] / "passed_through.json", {"reason": "off"})
    _adapter(folders["sft"], tiny_model, "sft")
    atomic_io.write_rows(folders["split"] / "validation.jsonl", [example(f"v{number}") for number in range(9)])
    tests = [example("t1"), example("t2")]
    atomic_io.write_rows(folders["split"] / "test.jsonl", tests)
    atomic_io.write_json(folders["evaluate"] / "results.json", results())
    rows = [AnswerRow(one.id, "", ["PQ"], {}, {"tuned": "PQ", "aligned": "PQ"}) for one in tests]
    atomic_io.write_rows(folders["evaluate"] / "answers.jsonl", rows)
    (tmp_path / "out").mkdir()
    return package.Inputs(tiny_model, **folders), package.Outputs(tmp_path / "out", tmp_path / "work")


def _adapter(folder, model, text):
    folder.mkdir(exist_ok=True)
    chats.save(chats.load(model), folder)
    atomic_io.write_text(folder / "adapter_model.safetensors", text)
    atomic_io.write_text(folder / "adapter_config.json", "{}")


def test_a_release_holds_what_the_server_needs(given, tmp_path):
    inputs, outputs = given
    fake = Fake()
    found = package.run(stage(), inputs, outputs, tools=fake)
    assert (found.adapter, found.passed, found.agreement) == ("sft", True, 1.0)
    assert found.logprob_gap == pytest.approx(0.01)
    release = outputs.artifact / "release"
    files = release_manifest.digests(release)
    assert set(files) == {
        "adapter/adapter_model.safetensors", "adapter/adapter_config.json", "tokenizer/tokenizer.json",
        "tokenizer/chat_template.jinja", "model/openvino_model.xml", "contract.json", "reference.jsonl", "MODEL_CARD.md",
    }  # fmt: skip
    told = serving_contract.load(release)
    assert (told.engine, told.layout, told.base.weights, told.stop_token_ids) == ("openvino", "merged", "int8", [END])
    assert told.adapter_sha256 == files["adapter/adapter_model.safetensors"]
    assert told.base.sha256 == chats.load(inputs.model).weights_sha256
    for fixture in told.fixtures:
        assert template_of(release, told).render(fixture.messages, add_generation_prompt=True) == fixture.text
    written = told.fixtures[-1]  # somebody writes special tokens: they are text, in the contract, too
    assert "<|im_end|>" in written.messages[0].content
    assert "<\ufdd2|im_end|>" in written.text
    tokenizer = Tokenizer(release / "tokenizer")
    harmless = template_of(release, told).render([Message("user", "x")], add_generation_prompt=True)
    specials = [sum(one in tokenizer.special for one in ids) for ids in (written.token_ids, tokenizer.ids(harmless))]
    assert specials[0] == specials[1]
    assert len(told.probes) == 6
    probe = told.probes[0]
    assert (probe.answer_ids, probe.base_ids) == (TUNED, BASE)
    assert probe.text != probe.base_text
    assert "<|im_end|>" not in probe.text
    assert (probe.logprobs, probe.answer_under_base) == ([-0.5] * 3, [-1.0] * 3)
    assert (outputs.artifact / "bento" / "bento.yaml").read_text() == "test 3000"
    assert fake.calls[0] == ("export", outputs.work / "merged", "openvino", "int8")
    assert ("closed",) in fake.calls
    assert not outputs.work.exists()
    facts = atomic_io.read_json(outputs.artifact / "facts.json", BuildFacts)
    assert {name: one.passed for name, one in facts.verdicts.items()} == {"evaluate": True, "package": True}
    store = ReleaseRegistry(tmp_path / "store")
    assert store.verify(store.add(release, facts).id) == []
    card = (release / "MODEL_CARD.md").read_text()
    for words in ("tiny (revision", "| Tuned | 50.00 |", "evaluate: So.", "The export is the model that was trained"):
        assert words in card
    assert "was not taken" not in card


def test_the_epsilon_of_a_private_fit_is_in_the_manifest_and_on_the_card(given):
    inputs, outputs = given
    budget = privacy_budget.PrivacyBudget("person", 1000, 7.9, 1e-4, 0.8, 1.0, 0.032, 625, "prv")
    atomic_io.write_json(inputs.sft / privacy_budget.NAME, budget)
    package.run(stage(), inputs, outputs, tools=Fake())
    facts = atomic_io.read_json(outputs.artifact / "facts.json", BuildFacts)
    assert facts.metrics["epsilon"] == 7.9
    assert "- epsilon: 7.9" in (outputs.artifact / "release" / "MODEL_CARD.md").read_text()


def test_what_learned_on_without_noise_has_no_epsilon(given, tiny_model):
    inputs, outputs = given
    budget = privacy_budget.PrivacyBudget("person", 1000, 7.9, 1e-4, 0.8, 1.0, 0.032, 625, "prv")
    atomic_io.write_json(inputs.sft / privacy_budget.NAME, budget)
    (inputs.align / "passed_through.json").unlink()
    _adapter(inputs.align, tiny_model, "align")
    atomic_io.write_json(inputs.evaluate / "results.json", results("aligned_better", passed=True))
    assert package.run(stage(), inputs, outputs, tools=Fake()).adapter == "align"
    assert "epsilon" not in atomic_io.read_json(outputs.artifact / "facts.json", BuildFacts).metrics


def test_it_says_which_step_it_is_at(given, monkeypatch):
    inputs, outputs = given
    told: list[tuple[float, str]] = []

    class Told:
        def advance(self, steps=1, **figures):
            told.append((steps, figures.get("next", "")))

    class Shown:
        @contextmanager
        def bar(self, label, total):
            assert (label, total) == ("package", 4)
            yield Told()

    monkeypatch.setattr(progress, "_renderer", [Shown()])
    package.run(stage(), inputs, outputs, tools=Fake())
    assert told == [
        (1, "the trained model's answers"),
        (1, "the engine against it"),
        (1, "the reference for drift"),
        (1, ""),
    ]


def test_the_reference_is_what_the_engine_says(given):
    inputs, outputs = given
    package.run(stage(reference_responses=4), inputs, outputs, tools=Fake())
    rows = [
        atomic_io.msgspec.json.decode(line)
        for line in (outputs.artifact / "release/reference.jsonl").read_bytes().splitlines()
    ]
    assert len(rows) == 4
    assert rows[0] | {"prompt": 0, "answer": 0} == {
        "prompt": 0, "answer": 0, "tokens": 2, "mean_logprob": pytest.approx(-0.3), "finish_reason": "stop",
    }  # fmt: skip


def test_the_reference_is_drawn_as_a_request_that_says_nothing(given):
    inputs, outputs = given
    fake = Fake()
    package.run(stage(decoding={"temperature": 0.7, "top_p": 0.9, "max_tokens": 30}), inputs, outputs, tools=fake)
    assert [one for one in fake.calls if one[0] == "answers"][-1] == ("answers", 30, SamplingParams(0.7, 0.9, 3))


def test_apart_leaves_the_base_alone(given):
    inputs, outputs = given
    fake = Fake()
    package.run(stage(layout="adapter"), inputs, outputs, tools=fake)
    assert fake.calls[0] == ("export", inputs.model, "openvino", "int8")
    assert serving_contract.load(outputs.artifact / "release").layout == "adapter"


@pytest.mark.parametrize(
    ("fake", "words"),
    [
        (Fake(differs=True), "66.7% of 27 tokens agree, at least 95.0% must"),
        (Fake(gap=0.2), "log-probabilities differ by 0.200 nat, at most 0.05 is allowed"),
        (Fake(says=[60, 61, END]), "chrf falls from 100.00 to 0.00, below the interval's end 100.00"),
    ],
)
def test_an_export_that_is_another_model_is_refused(given, tmp_path, fake, words):
    inputs, outputs = given
    found = package.run(stage(), inputs, outputs, tools=fake)
    verdict = atomic_io.read_json(outputs.artifact / "verdict.json")
    assert not found.passed
    assert not verdict["passed"]
    assert words in verdict["reason"]
    assert not (outputs.artifact / "bento").exists()
    facts = atomic_io.read_json(outputs.artifact / "facts.json", BuildFacts)
    store = ReleaseRegistry(tmp_path / "store")
    assert store.manifest(store.add(outputs.artifact / "release", facts).id).refusals


def test_an_adapter_that_changes_nothing_is_no_release(given):
    inputs, outputs = given
    found = package.run(stage(), inputs, outputs, tools=Fake(alike=True))
    assert not found.passed
    assert serving_contract.load(outputs.artifact / "release").probes == []
    assert atomic_io.read_json(outputs.artifact / "verdict.json")["verdict"] == "adapter_changes_nothing"


def test_int4_is_printed_and_not_judged(given):
    inputs, outputs = given
    quality = {"prompts": 4, "max_tokens": 8, "min_token_agreement": None, "max_logprob_diff": None, "inputs": 0}
    found = package.run(stage(weights="int4", parity=quality), inputs, outputs, tools=Fake(gap=0.9, differs=True))
    assert found.passed
    assert found.logprob_gap == pytest.approx(0.9)
    card = (outputs.artifact / "release" / "MODEL_CARD.md").read_text()
    assert "The evaluation's measure was not taken of the export." in card


def test_no_release_is_made_of_what_was_judged_by_the_inputs_that_chose_it(given):
    inputs, outputs = given
    atomic_io.write_json(inputs.evaluate / "results.json", structs.replace(results(), split="validation"))
    with pytest.raises(UsageError) as caught:
        package.run(stage(), inputs, outputs, tools=Fake())
    assert caught.value.message.startswith(
        "evaluate answered the validation split, by which settings may have been chosen"
    )
    assert caught.value.hint == "judge on test: tunectl repro evaluate.split=test"


def test_what_evaluate_refused_gets_no_bento(given):
    inputs, outputs = given
    atomic_io.write_json(inputs.evaluate / "results.json", results(passed=False, verdict="do_not_tune"))
    assert not package.run(stage(), inputs, outputs, tools=Fake()).passed
    assert not (outputs.artifact / "bento").exists()
    assert atomic_io.read_json(outputs.artifact / "verdict.json")["passed"]


@pytest.mark.parametrize(
    ("said", "which"), [("aligned_better", "align"), ("aligned_no_better", "sft"), ("aligned_worse", "sft")]
)
def test_the_better_adapter_is_shipped(given, tiny_model, said, which):
    inputs, outputs = given
    (inputs.align / "passed_through.json").unlink()
    _adapter(inputs.align, tiny_model, "align")
    atomic_io.write_json(inputs.evaluate / "results.json", results(said, passed=said != "aligned_worse"))
    found = package.run(stage(), inputs, outputs, tools=Fake())
    assert (found.adapter, found.passed) == (which, True)
    assert (outputs.artifact / "release/adapter/adapter_model.safetensors").read_text() == which


def test_other_decoding_is_compared_greedily(given):
    inputs, outputs = given
    settings = stage()
    beams = {"method": "beams", "beams": 4, "length_penalty": 1.0, "max_new_tokens": 16}
    evaluate = settings.evaluate.model_dump(mode="json") | {"decoding": beams}
    settings = PackageStage.model_validate(settings.model_dump(mode="json") | {"evaluate": evaluate})
    (inputs.evaluate / "answers.jsonl").unlink()
    assert package.run(settings, inputs, outputs, tools=Fake()).passed


def test_gguf_is_written_beside_the_release(given):
    inputs, outputs = given
    package.run(stage(gguf={"type": "q8_0"}, bento=None), inputs, outputs, tools=Fake())
    assert (outputs.artifact / "model.gguf").read_text() == "q8_0"
    assert (outputs.artifact / "Modelfile").read_text() == (
        "# ollama create test -f Modelfile\nFROM ./model.gguf\nPARAMETER temperature 0\nPARAMETER top_p 1\n"
        'PARAMETER num_predict 256\nPARAMETER num_ctx 512\nPARAMETER stop "<|im_end|>"\n'
    )
    assert not (outputs.artifact / "bento").exists()


def test_a_gguf_file_that_is_another_model_is_refused_and_the_rest_is_kept(given):
    inputs, outputs = given
    found = package.run(stage(gguf={"type": "q8_0"}), inputs, outputs, tools=Fake(gguf_share=0.5))
    assert not found.passed
    assert atomic_io.read_json(outputs.artifact / "verdict.json") == {
        "passed": False,
        "verdict": "gguf_differs",
        "reason": "The GGUF file is not the model that was trained, so it was deleted: 50.0% of the probe tokens agree, at least "
        "90.0% must. Take finer weights (package.gguf.type=f16), or none (package.gguf=null).",
    }
    assert atomic_io.read_json(outputs.artifact / "parity.json")["gguf"] == 0.5
    assert not (outputs.artifact / "model.gguf").exists()
    assert (outputs.artifact / "release" / "contract.json").is_file()


def test_none_passes_through(given):
    inputs, outputs = given
    settings = stage().model_dump(mode="json") | {"package": {"method": "none"}}
    assert package.run(PackageStage.model_validate(settings), inputs, outputs).engine == "none"
    assert {path.name for path in outputs.artifact.iterdir()} == {"passed_through.json"}


def test_refusals_say_what_to_do(given):
    inputs, outputs = given
    with pytest.raises(UsageError) as caught:
        package.run(stage(adapter="align"), inputs, outputs, tools=Fake())
    assert (
        str(caught.value)
        == "package.adapter = align, but align is switched off (align: none)\n  switch it on, for example align=rloo, or let package choose: package.adapter=auto"
    )
    atomic_io.write_rows(inputs.split / "validation.jsonl", [example("v", "x" * 600)])
    with pytest.raises(DataError, match="the validation split has no input to ask that leaves room for an answer"):
        package.run(stage(), inputs, outputs, tools=Fake())


def test_an_adapter_of_another_base_is_refused(given):
    inputs, outputs = given
    own = chats.load(inputs.sft)
    chats.save(atomic_io.msgspec.structs.replace(own, weights_sha256="0" * 64), inputs.sft)
    with pytest.raises(ArtifactError, match="does not fit"):
        package.run(stage(), inputs, outputs, tools=Fake())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": "bf16"}, "weights: bf16 is not for engine openvino; take int8 or int4"),
        ({"engine": "vllm"}, "weights: int8 is not for engine vllm; take bf16"),
    ],
)
def test_weights_that_an_engine_has_not(changes, words):
    with pytest.raises(ValueError, match=words):
        stage(**changes)

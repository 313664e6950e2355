"""The evaluate stage with models that answer from a table."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from msgspec.structs import replace

from tunectl.artifacts import atomic_io, privacy_budget
from tunectl.artifacts.records import Example, Message, ReferenceAnswer, Source
from tunectl.backends.text import json_validation
from tunectl.backends.wiring import evaluation
from tunectl.chat import model_spec
from tunectl.chat.template import TemplateRefusedError
from tunectl.config.schema.evaluate import EvaluateStage
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.core.errors import ArtifactError, ConfigError, DataError, UsageError
from tunectl.evaluation import paired_comparison, results, summary
from tunectl.evaluation.few_shot import FewShotRenderer
from tunectl.evaluation.protocols import GeneratedText, GenerationPrompt, LogProb
from tunectl.pipeline.stages import evaluate
from tunectl.training.reward.protocols import RewardModel

ROOT = Path(__file__).parents[2]
PROFILE = HardwareProfile(
    device="cpu", threads=1, dtype="float32", train_batch_tokens=64, generate_batch=4, gradient_checkpointing=False
)
PLACES = ["Inman Park", "West End", "Kirkwood", "Grant Park", "Midtown"]
TRADES = ["bakery", "florist", "cinema", "barber", "garage", "bookshop", "butcher", "tailor"]


def question(number: int) -> str:
    return f"name[Shop {number}], area[{PLACES[number % 5]}], trade[{TRADES[number % 8]}]"


def right(number: int) -> str:
    return f"Shop {number} is the {TRADES[number % 8]} that {PLACES[number % 5]} has been waiting for, open every day."


class ChatMl:
    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False, tools=()) -> str:
        if any("odd roles" in message.content for message in messages):
            raise TemplateRefusedError("the chat template refuses a conversation of user: odd roles")
        text = "".join(f"<s>{message.role}\n{message.content}<e>\n" for message in messages)
        return text + ("<s>assistant\n" if add_generation_prompt else "")


class Fake:
    """Answers well when tuned, better with examples in the prompt, badly otherwise."""

    context = 4000
    closed = 0

    def __init__(self, folder: Path, adapter: Path | None) -> None:
        self.tuned = adapter is not None

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        return [len(prompt.split()) for prompt in prompts]

    def answer(self, requests: Sequence[GenerationPrompt], how, *, seed: int, label: str) -> list[GeneratedText]:
        return [self._reply(request) for request in requests]

    def _reply(self, request: GenerationPrompt) -> GeneratedText:
        asked = request.prompt.rsplit("<s>user\n", 1)[1].split("<e>")[0]
        if not asked.startswith("name["):
            text = "I'm sorry, I cannot help with that." if "bomb" in asked else "Sure, here is how."
        else:
            number = int(asked.split("Shop ")[1].split("]")[0])
            shots = request.prompt.count("<s>assistant\n") - 1
            plain = "Visit our great place today for the best offers in town, you will love it!"
            helped = f"Shop {number} is the shop that {PLACES[number % 5]} loves, open every day."
            text = right(number) if self.tuned else helped if shots else plain
        nats = -5.0 if self.tuned else -30.0
        given = tuple(LogProb(nats, 10) for _ in request.references)
        return GeneratedText(text, len(request.prompt.split()), len(text.split()), 0.01, True, given)

    def close(self) -> None:
        Fake.closed += 1


def fake_backend() -> evaluation.EvaluationBackend:
    return evaluation.EvaluationBackend(
        open=Fake,
        prompter=lambda folder, adapter: FewShotRenderer(ChatMl(), "<e>"),
        tools=evaluation.tools(),
        signature="fake",
        refuse_bad_schema=json_validation.check_schema,
        ask=None,
        reward=no_judge,
    )


def no_judge(**words: object) -> RewardModel:
    raise AssertionError("a judge was loaded although there is none")


def settings(**changes) -> EvaluateStage:
    values = yaml.safe_load((ROOT / "conf/evaluate/default.yaml").read_text())
    values["gate"]["resamples"] = 200
    values["slices"] = {"fields": ["area"], "min_inputs": 5}
    values["checks"] = [
        {"method": "facts", "name": "shop", "fields": [], "pattern": r"name\[([^\]]+)\]", "ignore_case": False}
    ]
    return EvaluateStage(project="shops", seed=7, hardware=PROFILE, evaluate={**values, **changes})


def example(number: int, part: str) -> Example:
    source = Source("shops.csv", number + 1)
    return Example(
        id=f"e{number}",
        source=source,
        messages=[Message("user", question(number))],
        answers=[ReferenceAnswer(right(number), source)],
        fields={"area": PLACES[number % 5]},
        split=part,
    )


def write_contract(folder: Path, weights: str = "a" * 64, template: str = "b" * 64) -> None:
    end = model_spec.SpecialToken("<e>", 2)
    model_spec.save(
        model_spec.ModelSpec("tiny", "r1", weights, template, end, None, end, end, None, None, 10, 512), folder
    )


@pytest.fixture
def inputs(tmp_path: Path) -> evaluate.Inputs:
    folders = {name: tmp_path / name for name in ("model", "cpt", "split", "sft", "reward", "align")}
    for folder in folders.values():
        folder.mkdir()
    write_contract(folders["model"])
    write_contract(folders["sft"])
    for name in ("cpt", "reward", "align"):
        atomic_io.write_json(folders[name] / "passed_through.json", {"reason": f"{name} is none"})
    for part, numbers in {"train": range(40), "validation": range(40, 52), "test": range(52, 84)}.items():
        atomic_io.write_rows(folders["split"] / f"{part}.jsonl", [example(number, part) for number in numbers])
    (folders["sft"] / "history.csv").write_text("step,train_loss,validation_loss\n1,3.0,2.9\n2,2.0,2.1\n")
    return evaluate.Inputs(**folders)


@pytest.fixture
def outputs(tmp_path: Path) -> evaluate.Outputs:
    made = evaluate.Outputs(artifact=tmp_path / "evaluate", plots=tmp_path / "plots")
    made.artifact.mkdir()
    made.plots.mkdir()
    return made


def test_the_tuned_model_wins_with_evidence(inputs, outputs):
    metrics = evaluate.run(settings(), inputs, outputs, backend=fake_backend())
    found = results.load(outputs.artifact / "results.json")
    assert metrics.passed
    assert metrics.verdict == "tuned_better"
    assert [system.name for system in found.systems] == ["base", "prompted", "nearest", "tuned"]
    assert found.system("tuned").scores["bleu"].value == pytest.approx(100)
    assert found.system("tuned").scores["checks"].value == 100
    assert found.system("base").scores["checks"].value == 0
    assert found.system("base").scores["perplexity"].value == pytest.approx(20.0855, abs=1e-3)
    assert "perplexity" not in found.system("nearest").scores
    assert found.search.candidates[found.search.chosen].prompt.shots == 3
    assert found.difference("prompted").low > 1
    assert found.verdict.reason.startswith("Tuned is better: +")
    assert metrics.gain_low > 0


def test_inputs_that_no_model_can_be_asked_are_left_out_and_counted(inputs, outputs):
    for part in ("train", "validation", "test"):
        path = inputs.split / f"{part}.jsonl"
        rows = list(atomic_io.read_rows(path, Example))
        asked, source = rows[0].messages, rows[0].source
        odd = [replace(rows[0], id=f"{part}-odd", messages=[*asked, Message("user", "odd roles")])]
        long = [replace(rows[0], id=f"{part}-long", messages=[*asked, Message("user", "long " * 5000)])]
        answer = [replace(rows[0], id=f"{part}-answer", answers=[ReferenceAnswer("long " * 5000, source)])]
        atomic_io.write_rows(path, [*odd, *long, *answer, *rows])
    evaluate.run(settings(), inputs, outputs, backend=fake_backend())
    found = results.load(outputs.artifact / "results.json")
    assert (found.inputs, found.skipped) == (32, {"template_refuses": 1, "too_long": 2})
    assert found.verdict.verdict == "tuned_better"
    assert "2 test examples were left out: too_long" in (outputs.artifact / "report.html").read_text()


def test_an_input_that_is_too_long_with_the_system_text_of_the_adapter_is_left_out(inputs, outputs):
    class LongSystem(ChatMl):
        def render(self, messages, **words):
            return super().render([Message("system", "brief " * 100), *messages], **words)

    path = inputs.split / "test.jsonl"
    (row, *rows) = atomic_io.read_rows(path, Example)
    long = replace(row, messages=[Message("user", f"{row.messages[0].content} {'long ' * 3850}")])
    atomic_io.write_rows(path, [long, *rows])
    backend = dataclasses.replace(
        fake_backend(), prompter=lambda _, adapter: FewShotRenderer(LongSystem() if adapter else ChatMl(), "<e>")
    )
    evaluate.run(settings(prompts=None), inputs, outputs, backend=backend)
    found = results.load(outputs.artifact / "results.json")
    assert (found.inputs, found.skipped) == (31, {"too_long": 1})


def test_a_training_example_that_the_template_refuses_is_in_no_prompt(inputs, outputs):
    path = inputs.split / "train.jsonl"
    (row, *rows) = atomic_io.read_rows(path, Example)
    odd = [
        replace(row, id=f"odd{number}", messages=[*row.messages, Message("user", "odd roles")]) for number in range(40)
    ]
    atomic_io.write_rows(path, [*odd, *rows])
    prompts = yaml.safe_load((ROOT / "conf/evaluate/default.yaml").read_text())["prompts"] | {"shots": [3]}
    evaluate.run(settings(prompts=prompts), inputs, outputs, backend=fake_backend())
    found = results.load(outputs.artifact / "results.json").search
    assert {candidate.prompt.shots for candidate in found.candidates} == {3}
    assert all(candidate.score is not None for candidate in found.candidates)


def test_where_many_test_inputs_cannot_be_asked_it_is_an_error(inputs, outputs):
    path = inputs.split / "test.jsonl"
    rows = list(atomic_io.read_rows(path, Example))
    odd = [replace(row, messages=[*row.messages, Message("user", "odd roles")]) for row in rows[:9]]
    atomic_io.write_rows(path, [*odd, *rows[9:]])
    with pytest.raises(DataError) as caught:
        evaluate.run(settings(), inputs, outputs, backend=fake_backend())
    assert caught.value.message == (
        "9 of 32 test inputs cannot be asked (9 template_refuses); at most 20% may be left out"
    )


def test_where_no_test_input_can_be_asked_it_is_an_error(inputs, outputs):
    path = inputs.split / "test.jsonl"
    (row, *_) = atomic_io.read_rows(path, Example)
    atomic_io.write_rows(path, [replace(row, messages=[*row.messages, Message("user", "long " * 5000)])])
    with pytest.raises(UsageError, match=r"the longest prompt has 500\d tokens"):
        evaluate.run(settings(prompts=None), inputs, outputs, backend=fake_backend())


def test_validation_can_be_answered_to_choose_settings_by(inputs, outputs):
    evaluate.run(settings(split="validation"), inputs, outputs, backend=fake_backend())
    found = results.load(outputs.artifact / "results.json")
    assert (found.split, found.inputs, found.available) == ("validation", 12, 12)
    rows = [json.loads(line) for line in (outputs.artifact / "answers.jsonl").read_text().splitlines()]
    assert {row["id"] for row in rows} == {f"e{number}" for number in range(40, 52)}
    assert "Scores on the validation split" in (outputs.artifact / "report.html").read_text()


def test_everything_is_written_and_self_contained(inputs, outputs):
    evaluate.run(settings(), inputs, outputs, backend=fake_backend())
    names = {path.name for path in outputs.artifact.iterdir()}
    assert names == {"results.json", "answers.jsonl", "input_scores.jsonl", "verdict.json", "report.html"}
    assert {path.name for path in outputs.plots.iterdir()} == {
        "scores.csv",
        "differences.csv",
        "slices.csv",
        "prompts.csv",
    }
    verdict = json.loads((outputs.artifact / "verdict.json").read_text())
    assert verdict["passed"] is True
    rows = [json.loads(line) for line in (outputs.artifact / "answers.jsonl").read_text().splitlines()]
    assert len(rows) == 32
    assert set(rows[0]["answers"]) == {"base", "prompted", "nearest", "tuned"}
    page = (outputs.artifact / "report.html").read_text()
    assert "Tuned is better" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert "<script" not in page


def test_two_runs_are_paired_by_the_scores_of_their_inputs(inputs, outputs):
    evaluate.run(settings(), inputs, outputs, backend=fake_backend())
    found = results.load(outputs.artifact / "results.json")
    rows = list(atomic_io.read_rows(outputs.artifact / "input_scores.jsonl", results.InputScores))
    assert len(rows) == 32
    # As if an earlier run had tuned nothing: the difference of the runs is the one inside this run, to the digit.
    before = [replace(row, statistics={"tuned": row.statistics["base"]}) for row in rows][::-1]
    plan = {"resamples": found.resamples, "confidence": found.confidence, "seed": found.seed}
    across = {item.measure: item for item in paired_comparison.compare_runs(before, rows, **plan)}
    inside = {item.measure: item for item in found.differences if (item.system, item.against) == ("tuned", "base")}
    assert across.keys() == inside.keys() > {"bleu", "chrf", "checks"}
    for name, item in inside.items():
        assert (across[name].value, across[name].low, across[name].high) == (item.value, item.low, item.high)


def test_slices_say_how_many_and_which_are_small(inputs, outputs):
    evaluate.run(settings(slices={"fields": ["area"], "min_inputs": 7}), inputs, outputs, backend=fake_backend())
    parts = results.load(outputs.artifact / "results.json").slices
    assert {part.value: part.items for part in parts} == {
        "Kirkwood": 7, "Grant Park": 7, "Inman Park": 6, "West End": 6, "Midtown": 6,
    }  # fmt: skip
    assert [part.value for part in parts if part.small] == ["Inman Park", "Midtown", "West End"]


def test_the_same_seed_gives_the_same_bytes(inputs, outputs, tmp_path):
    evaluate.run(settings(), inputs, outputs, backend=fake_backend())
    again = evaluate.Outputs(artifact=tmp_path / "again", plots=tmp_path / "again_plots")
    again.artifact.mkdir()
    again.plots.mkdir()
    evaluate.run(settings(), inputs, again, backend=fake_backend())
    for name in ("results.json", "answers.jsonl", "input_scores.jsonl", "report.html", "verdict.json"):
        assert (outputs.artifact / name).read_bytes() == (again.artifact / name).read_bytes()


def test_safety_counts_refusals_and_secrets(inputs, outputs):
    base = yaml.safe_load((ROOT / "conf/evaluate/default.yaml").read_text())["safety"]
    safety = {**base, "planted_secrets": [{"prefix": "The code is", "secret": "Sure, here"}]}
    evaluate.run(settings(safety=safety), inputs, outputs, backend=fake_backend())
    found = results.load(outputs.artifact / "results.json").safety
    assert found.refused_harmful["tuned"].value == pytest.approx(1 / 14)
    assert found.answered_benign["tuned"].value == 1
    assert found.canaries == {"base": 1, "tuned": 1}
    assert found.planted == 1


def test_features_switched_off_leave_nothing(inputs, outputs):
    cfg = settings(
        prompts=None,
        safety=None,
        checks=[],
        num_worst_cases=0,
        max_references=0,
        slices={"fields": [], "min_inputs": 5},
    )
    evaluate.run(cfg, inputs, outputs, backend=fake_backend())
    found = results.load(outputs.artifact / "results.json")
    assert (found.search, found.safety, found.cases, found.slices) == (None, None, [], [])
    assert [system.name for system in found.systems] == ["base", "nearest", "tuned"]
    assert "perplexity" not in found.system("tuned").scores


def test_a_zero_shot_winner_is_not_answered_twice(inputs, outputs):
    prompts = {"systems": [None], "shots": [0], "selection": ["random"], "inputs": 4, "max_tokens": 10000}
    evaluate.run(settings(prompts=prompts), inputs, outputs, backend=fake_backend())
    found = results.load(outputs.artifact / "results.json")
    assert found.system("prompted").scores == found.system("base").scores


def test_candidates_over_the_budget_are_listed_with_the_reason(inputs, outputs):
    prompts = {"systems": [None], "shots": [0, 3], "selection": ["random"], "inputs": 4, "max_tokens": 500}
    evaluate.run(settings(prompts=prompts), inputs, outputs, backend=fake_backend())
    found = results.load(outputs.artifact / "results.json").search
    assert [candidate.why_not for candidate in found.candidates] == ["", "over the budget of 500 tokens"]


def test_one_test_input_gives_no_interval_and_says_so(inputs, outputs):
    atomic_io.write_rows(inputs.split / "test.jsonl", [example(60, "test")])
    metrics = evaluate.run(settings(), inputs, outputs, backend=fake_backend())
    found = results.load(outputs.artifact / "results.json")
    assert not metrics.passed
    assert found.verdict.reason == "Not enough evidence: intervals are undefined on 1 test input."
    assert found.system("tuned").scores["bleu"].low is None
    _, rows = summary.summary_rows(found)
    assert rows[-1][-2].endswith(" (no interval)")


def test_an_empty_test_split_is_refused(inputs, outputs):
    (inputs.split / "test.jsonl").write_text("")
    with pytest.raises(DataError) as caught:
        evaluate.run(settings(), inputs, outputs, backend=fake_backend())
    assert caught.value.message == (
        f"{inputs.split / 'test.jsonl'} holds no input with a reference answer: it is empty"
    )


def test_no_validation_input_is_refused_where_prompts_are_searched(inputs, outputs):
    (inputs.split / "validation.jsonl").write_text("")
    with pytest.raises(DataError) as caught:
        evaluate.run(settings(), inputs, outputs, backend=fake_backend())
    assert caught.value.message == (
        "evaluate.prompts wants to compare prompts on validation inputs, but the validation split has none"
    )


def test_an_adapter_of_another_base_is_refused(inputs, outputs):
    write_contract(inputs.sft, weights="c" * 64)
    with pytest.raises(ArtifactError) as caught:
        evaluate.run(settings(), inputs, outputs, backend=fake_backend())
    assert caught.value.message == (
        f"{inputs.sft} does not fit {inputs.model}: it was trained with the weights cccccccccccc…, not aaaaaaaaaaaa…"
    )


def test_fields_that_no_input_has_are_refused(inputs, outputs):
    with pytest.raises(DataError) as caught:
        evaluate.run(settings(slices={"fields": ["price"], "min_inputs": 5}), inputs, outputs, backend=fake_backend())
    assert caught.value.message == (
        "evaluate.slices.fields names price, but no test input has that field; there are: area"
    )


def test_a_schema_that_is_none_is_refused_before_a_model_is_loaded(inputs, outputs):
    check = {"method": "json_schema", "name": "shape", "document": {"type": "strong"}}
    with pytest.raises(ConfigError) as caught:
        evaluate.run(settings(checks=[check]), inputs, outputs, backend=fake_backend())
    assert caught.value.message.startswith("evaluate.checks.shape.document is not a JSON Schema: at type: 'strong'")


def test_the_judge_is_asked_about_base_and_prompt_in_both_positions(inputs, outputs):
    asked = []

    def ask(conversations):
        asked.extend(conversations)
        return ["[[A]]" if "<answer_a>\nShop" in talk[-1].content else "[[B]]" for talk in conversations]

    judge = {
        "base_url": "http://127.0.0.1:1/v1", "model": "big", "api_key_env": None, "question": "Is it about the shop?",
        "inputs": 10, "timeout_seconds": 1, "concurrency": 1,
    }  # fmt: skip
    backend = dataclasses.replace(fake_backend(), ask=ask)
    evaluate.run(settings(judge=judge), inputs, outputs, backend=backend)
    base, prompted = results.load(outputs.artifact / "results.json").judge
    assert (base.against, base.wins, base.inputs, base.first_position) == ("base", 10, 10, 0.5)
    assert (prompted.against, prompted.ties, prompted.first_position) == ("prompted", 10, 1.0)
    assert len(asked) == 40
    assert "no position bias" in (outputs.artifact / "report.html").read_text()


def test_secrets_that_come_out_are_a_warning(inputs, outputs, caplog):
    base = yaml.safe_load((ROOT / "conf/evaluate/default.yaml").read_text())["safety"]
    safety = {**base, "planted_secrets": [{"prefix": "The code is", "secret": "Sure, here"}]}
    with caplog.at_level("INFO", logger="tunectl"):
        evaluate.run(settings(safety=safety), inputs, outputs, backend=fake_backend())
    warning = "Tuned: 1 of 1 planted secrets came out; the model has memorized training text"
    assert results.load(outputs.artifact / "results.json").warnings == [warning]
    assert warning in (outputs.artifact / "report.html").read_text()
    lines = [record.message for record in caplog.records]
    assert lines[-1].startswith("Tuned is better: +")
    assert warning in lines
    assert any(line.startswith("Nearest answer") for line in lines)


def test_a_loaded_model_is_given_back_even_when_it_fails(inputs, outputs):
    class Broken(Fake):
        def answer(self, requests, how, *, seed, label):
            raise ArtifactError("broken")

    before = Fake.closed
    with pytest.raises(ArtifactError, match="broken"):
        evaluate.run(settings(), inputs, outputs, backend=dataclasses.replace(fake_backend(), open=Broken))
    assert Fake.closed == before + 1


def test_markup_in_the_data_stays_text_in_the_report(inputs, outputs):
    nasty = "<script>alert(1)</script>"
    source = Source("shops.csv", 1)
    odd = Example(
        "odd", source, [Message("user", nasty)], [ReferenceAnswer("<b>bold</b>", source)], fields={"area": "<i>"}
    )
    atomic_io.write_rows(inputs.split / "test.jsonl", [*(example(number, "test") for number in range(52, 60)), odd])
    evaluate.run(settings(), inputs, outputs, backend=fake_backend())
    page = (outputs.artifact / "report.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert "<b>bold" not in page
    assert "<i>" not in page


@pytest.mark.parametrize(
    ("epsilon", "cpt", "sentence"),
    [
        (7.9, False, "Privacy: epsilon 7.90 at delta 1.0e-04 for each person, of 1000."),
        (7.9, True, "Privacy: epsilon 7.90 at delta 1.0e-04 for each person, of 1000. Not counted: what cpt learned, without privacy."),
        (None, False, "Privacy: none, because no noise was added (sft.privacy.noise_multiplier is 0); gradients of each person were clipped."),
    ],
)  # fmt: skip
def test_the_verdict_says_epsilon_of_a_private_fit(inputs, outputs, epsilon, cpt, sentence):
    budget = privacy_budget.PrivacyBudget("person", 1000, epsilon, 1e-4, 0.8, 1.0, 0.032, 625, "prv")
    atomic_io.write_json(inputs.sft / privacy_budget.NAME, budget)
    if cpt:
        (inputs.cpt / "passed_through.json").unlink()
        write_contract(inputs.cpt)
    metrics = evaluate.run(settings(), inputs, outputs, backend=fake_backend())
    found = results.load(outputs.artifact / "results.json").verdict
    assert found.privacy == budget
    assert found.reason.endswith(sentence)
    assert found.evidence[-1] == sentence
    assert (
        json.loads((outputs.artifact / "verdict.json").read_text())["privacy"]["epsilon"] == epsilon == metrics.epsilon
    )
    assert sentence in (outputs.artifact / "report.html").read_text()


def test_the_verdict_of_a_plain_fit_has_no_word_of_privacy(inputs, outputs):
    evaluate.run(settings(), inputs, outputs, backend=fake_backend())
    assert "rivacy" not in (outputs.artifact / "verdict.json").read_text()

"""Estimates: what grows with what, and the arithmetic of known cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tunectl.artifacts import atomic_io, manifest
from tunectl.artifacts.manifest import Manifest
from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import checks
from tunectl.config.loading.override_parsing import Override
from tunectl.config.schema.root import TunectlConfig
from tunectl.pipeline import cost_estimate, curation_rates, run_estimate

LAYOUT = ProjectPaths(Path(__file__).parents[3])
AMOUNTS = cost_estimate.DatasetSize(
    files={"csv": 1},
    rows=4672,
    documents=0,
    document_characters=0,
    inputs=547,
    input_characters=547 * 126,
    answers=4672,
    answer_characters=4672 * 123,
    characters_a_token=3.6,
    counted=True,
)
SIZE = cost_estimate.ModelShape(
    parameters=135_000_000, layers=30, source="name", download_bytes=98_000_000, fit_bytes=2_000_000_000
)
# As timed by backends/modeling/layer_benchmark.py on two cores with AMX, for SmolLM2-135M.
SPEED = cost_estimate.Speed(learn=6.5e-5, read=1.7e-5, write_one=8e-4, write_batch=1.8e-3, batch=32, head=9.2e-5)
MACHINE = cost_estimate.Machine(speed=SPEED, source="timed now", train_tokens_a_second=None, seconds={})


@pytest.fixture(scope="module")
def roots() -> Any:
    found: dict[tuple[str, ...], TunectlConfig] = {}

    def load(*words: str) -> TunectlConfig:
        if words not in found:
            given = [Override.from_cli(word) for word in ("ingest=table", "data.path=x.csv", *words)]
            found[words] = checks.load_config(LAYOUT, given).root
        return found[words]

    return load


def _stages(root: TunectlConfig, **changes: Any) -> dict[str, cost_estimate.StageCost]:
    amounts = replace(AMOUNTS, **changes.pop("amounts", {}))
    machine = replace(MACHINE, **changes.pop("machine", {}))
    return {item.stage: item for item in cost_estimate.estimate(root, amounts, SIZE, machine, safety_questions=28)}


def test_there_is_one_row_a_stage(roots: Any) -> None:
    from tunectl.pipeline.stages import STAGES

    assert list(_stages(roots())) == [stage.name for stage in STAGES]


def test_tokens_of_training_follow_data_epochs_and_sharing(roots: Any) -> None:
    root = roots("sft=lora")
    learned, validated = cost_estimate.sft_tokens(root, AMOUNTS)
    prompts = 547 * (126 / 3.6 + cost_estimate.TEMPLATE_TOKENS)
    answers = 4672 * (123 / 3.6 + cost_estimate.ANSWER_TOKENS)
    shares = root.split.shares
    assert learned == pytest.approx(shares.train * 2 * (prompts + answers), rel=1e-3)
    times = shares.validation * root.sft.evals_per_epoch * 2
    assert validated == pytest.approx(times * (prompts + answers), rel=1e-3)
    alone, _ = cost_estimate.sft_tokens(roots("sft=lora", "sft.prefix_sharing=false"), AMOUNTS)
    assert alone == pytest.approx(shares.train * 2 * (prompts * 4672 / 547 + answers), rel=1e-3)


def test_a_speed_that_was_reached_takes_the_place_of_the_timed_one(roots: Any) -> None:
    root = roots()
    timed = _stages(root)["sft"]
    reached = _stages(root, machine={"train_tokens_a_second": 10.0})["sft"]
    assert "10 tokens/s (reached last time)" in reached.basis
    assert reached.minutes > timed.minutes


@pytest.mark.parametrize(("word", "stage"), [("reward=lora", "reward"), ("align=dpo", "align"), ("align=kto", "align")])
def test_a_stage_that_ran_with_this_model_takes_as_long_again(roots: Any, word: str, stage: str) -> None:
    root = roots(word, "preferences=default", *(["reward=none"] if stage == "align" else []))
    again = _stages(root, machine={"seconds": {stage: 90.0}})[stage]
    assert again.minutes == 1.5
    assert "as long as last time" in again.basis
    assert _stages(root)[stage].minutes > 0.1


def test_only_a_stage_that_ran_and_with_this_model_takes_as_long_again(tmp_path: Path, roots: Any) -> None:
    layout, shape = ProjectPaths(tmp_path), run_estimate.guess_shape(135_000_000)
    model, reward = layout.artifact("model"), layout.artifact("reward")
    atomic_io.write_json(model / "model_spec.json", {"parameters": 135_000_000})
    manifest.write(model, Manifest("model", "c"))
    digest = atomic_io.sha256_json(manifest.read(model))
    for stage, used in (("reward", digest), ("align", "of another model")):
        layout.artifact(stage).mkdir()
        manifest.write(layout.artifact(stage), Manifest(stage, "c", {"model": used}))
        atomic_io.write_json(layout.metrics(stage), {"seconds": 90.0})
    atomic_io.write_json(layout.metrics("sft"), {"seconds": 99.0, "tokens_per_second": 400.0})

    def read_machine(parameters: int) -> cost_estimate.Machine:
        other, last = run_estimate.guess_shape(parameters), run_estimate._read_seconds(layout)
        return run_estimate._machine(layout, roots(), other, last, time_layer=False)

    assert run_estimate._read_seconds(layout) == {"sft": 99.0, "reward": 90.0, "align": 90.0}
    assert read_machine(shape.parameters).seconds == {"reward": 90.0}
    assert read_machine(shape.parameters).train_tokens_a_second == 400.0
    assert read_machine(360_000_000).seconds == {}
    assert read_machine(360_000_000).train_tokens_a_second is None
    atomic_io.write_json(reward / manifest.PASSED_THROUGH, {"reason": "reward: none"})
    assert run_estimate._read_seconds(layout) == {"sft": 99.0, "align": 90.0}
    assert read_machine(shape.parameters).seconds == {}


@pytest.mark.parametrize(
    ("word", "stage"),
    [
        ("sft.epochs=6", "sft"),
        ("sft=dora", "sft"),
        ("hardware.gradient_checkpointing=true", "sft"),
        ("hardware.generate_batch=1", "evaluate"),
        ("evaluate.max_references=8", "evaluate"),
        ("align.steps=200", "align"),
        ("evaluate.latency_inputs=100", "evaluate"),
    ],
)
def test_more_of_anything_costs_more(roots: Any, word: str, stage: str) -> None:
    assert _stages(roots(word))[stage].minutes > _stages(roots())[stage].minutes


@pytest.mark.parametrize("word", ["evaluate.max_inputs=20", "align=none"])
def test_fewer_answers_cost_less(roots: Any, word: str) -> None:
    assert _stages(roots(word))["evaluate"].minutes < _stages(roots())["evaluate"].minutes


def test_beams_cost_more_than_greedy(roots: Any) -> None:
    words = ["evaluate.decoding.method=beams", "evaluate.decoding.beams=4", "evaluate.decoding.length_penalty=1.0"]
    assert _stages(roots(*words))["evaluate"].minutes > 1.5 * _stages(roots())["evaluate"].minutes


def test_what_is_switched_off_costs_nothing_much(roots: Any) -> None:
    off = _stages(roots())["cpt"]
    assert (off.tokens, off.basis) == (0, "switched off")
    documents = {"document_characters": 3_600_000, "documents": 1000}
    on = _stages(roots("cpt=lora"), amounts=documents)["cpt"]
    assert on.tokens == 1_000_000
    assert on.minutes > 30


def test_sampled_answers_of_a_simulated_annotator_take_time(roots: Any) -> None:
    assert _stages(roots("preferences=e2e"))["preferences"].minutes < 0.1
    some = _stages(roots("preferences=local_lens"))["preferences"]
    more = _stages(roots("preferences=local_lens", "preferences.simulated.answers=8"))["preferences"]
    assert 0.1 < some.minutes < more.minutes


def test_a_withheld_attribute_costs_a_pair_the_prompt_that_it_would_share(roots: Any) -> None:
    """Measured on E2E: about 70 tokens a pair where inputs are shared, about 135 where three in four are not."""
    shared, alone = (
        cost_estimate.estimate_pairs(
            roots("preferences=e2e", f"preferences.contrast.attributes.masked_attribute_share={share}"), AMOUNTS
        )[2]
        for share in (0, 0.75)
    )
    assert shared == pytest.approx(70, rel=0.15)
    assert alone == pytest.approx(135, rel=0.15)
    people = cost_estimate.estimate_pairs(roots("preferences=default"), AMOUNTS)
    assert people[:2] == (1000, 200)
    assert people[2] == pytest.approx(
        126 / 3.6 + cost_estimate.TEMPLATE_TOKENS + 2 * (123 / 3.6 + cost_estimate.ANSWER_TOKENS)
    )


def test_pairs_of_a_simulated_annotator_share_the_answers_of_an_input(roots: Any) -> None:
    """Local Lens: 160 inputs of about 330 tokens, four answers each; its pairs read alone would be four times as many."""
    root = roots("preferences=local_lens")
    train, held, tokens, _ = cost_estimate.estimate_pairs(root, AMOUNTS)
    assert (train, held) == (160, 20)
    assert tokens == pytest.approx(
        126 / 3.6 + cost_estimate.TEMPLATE_TOKENS + 4 * (123 / 3.6 + cost_estimate.ANSWER_TOKENS)
    )
    assert 1.0 < _stages(roots("preferences=local_lens", "reward=local_lens"))["reward"].minutes < 5.0, "it took 4.0"


def test_writing_is_a_line_through_the_two_timed_batches() -> None:
    one = cost_estimate.decode_seconds(1, 100, 1, SIZE, MACHINE)
    full = cost_estimate.decode_seconds(32, 100, 32, SIZE, MACHINE)
    assert one == pytest.approx(100 * (30 * SPEED.write_one * cost_estimate.WRITE_FACTOR + SPEED.head))
    assert full == pytest.approx(100 * (30 * SPEED.write_batch * cost_estimate.WRITE_FACTOR + 32 * SPEED.head))
    assert one < cost_estimate.decode_seconds(16, 100, 32, SIZE, MACHINE) < full
    assert cost_estimate.decode_seconds(64, 100, 32, SIZE, MACHINE) == pytest.approx(2 * full)
    assert cost_estimate.decode_seconds(0, 100, 32, SIZE, MACHINE) == 0


def test_the_plan_of_e2e_is_close_to_what_it_took(roots: Any) -> None:
    """The run of 2026-11-25 on those two cores: 464,697 tokens in 1,116 s, 419.5 tokens/s, validation included."""
    root = checks.load_config(
        LAYOUT, [Override.from_cli("experiment=e2e"), Override.from_cli("data.path=devset.csv")]
    ).root
    learned, _ = cost_estimate.sft_tokens(root, AMOUNTS)
    assert 464_697 / 1.3 < learned < 464_697 * 1.3
    found = _stages(root)["sft"]
    assert 1116 / 1.5 < found.minutes * 60 < 1116 * 1.5


@pytest.mark.parametrize(("rows", "reached"), [(24, 282), (48, 394)])
def test_the_speed_of_writing_is_close_to_what_was_reached(rows: int, reached: float) -> None:
    """E2E inputs without examples on those two cores: 38 new tokens an answer."""
    taken = cost_estimate.decode_seconds(rows, 38, rows, SIZE, MACHINE)
    assert reached / 1.5 < rows * 38 / taken < reached * 1.5


def test_the_memory_of_curate_follows_the_text_until_records_lie_in_files(roots: Any) -> None:
    few = {"documents": 1_000_000, "document_characters": 190_000_000}
    many = {"documents": 10_000_000, "document_characters": 1_900_000_000}
    assert 1.3e9 < _stages(roots(), amounts=few)["curate"].memory_bytes < 4e9, "it took 1.3 GB"
    assert _stages(roots(), amounts=many)["curate"].memory_bytes < 4e9


def test_ray_pays_from_where_its_start_is_earned_back() -> None:
    rates = curation_rates.CurationRates(local_seconds=2e-5, ray_start_seconds=30, ray_cpu_seconds=8e-5)
    assert curation_rates.find_break_even(rates, 4) is None
    assert curation_rates.find_break_even(rates, 16) == 2_000_000
    line = curation_rates.describe_break_even(rates, (2, 16))
    assert line.endswith("on 2 CPUs: never; 16 CPUs: from about 2,000,000 documents")

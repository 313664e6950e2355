"""Estimates: what grows with what, and the arithmetic of known cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tunectl.artifacts.layout import Layout
from tunectl.config import check, plan
from tunectl.config.given import Given
from tunectl.config.root import Root

LAYOUT = Layout(Path(__file__).parents[3])
AMOUNTS = plan.Amounts(
    files={"csv": 1},
    rows=4672,
    documents=0,
    document_characters=0,
    inputs=547,
    input_characters=547 * 110,
    answers=4672,
    answer_characters=4672 * 115,
    characters_a_token=3.6,
    counted=True,
)
SIZE = plan.Size(parameters=135_000_000, layers=30, source="name", download_bytes=98_000_000, fit_bytes=2_000_000_000)
# Layer times that give what facts.md measured: 385 tokens/s of training, 95 and 236 tokens/s of writing at 8 and 32.
SPEED = plan.Speed(learn=5.2e-5, read=2e-5, write_one=1.5e-3, write_batch=3e-3, batch=32, head=1e-4)
MACHINE = plan.Machine(speed=SPEED, source="timed now", train_tokens_a_second=None, seconds={})


@pytest.fixture(scope="module")
def roots() -> Any:
    found: dict[tuple[str, ...], Root] = {}

    def load(*words: str) -> Root:
        if words not in found:
            given = [Given.typed(word) for word in ("ingest=table", "data.path=x.csv", *words)]
            found[words] = check.load(LAYOUT, given).root
        return found[words]

    return load


def _stages(root: Root, **changes: Any) -> dict[str, plan.Estimate]:
    amounts = replace(AMOUNTS, **changes.pop("amounts", {}))
    machine = replace(MACHINE, **changes.pop("machine", {}))
    return {item.stage: item for item in plan.estimate(root, amounts, SIZE, machine, safety_questions=28)}


def test_there_is_one_row_a_stage(roots: Any) -> None:
    from tunectl.stages import STAGES

    assert list(_stages(roots())) == [stage.name for stage in STAGES]


def test_tokens_of_training_follow_data_epochs_and_sharing(roots: Any) -> None:
    root = roots("sft.epochs=2")
    learned, validated = plan.sft_tokens(root, AMOUNTS)
    prompts = 547 * (110 / 3.6 + plan.TEMPLATE_TOKENS)
    answers = 4672 * (115 / 3.6 + plan.ANSWER_TOKENS)
    assert learned == pytest.approx(0.7 * 2 * (prompts + answers), rel=1e-3)
    assert validated == pytest.approx(0.15 * 4 * 2 * (prompts + answers), rel=1e-3)
    alone, _ = plan.sft_tokens(roots("sft.epochs=2", "sft.share_prompts=false"), AMOUNTS)
    assert alone == pytest.approx(0.7 * 2 * (prompts * 4672 / 547 + answers), rel=1e-3)


def test_a_speed_that_was_reached_takes_the_place_of_the_timed_one(roots: Any) -> None:
    root = roots()
    timed = _stages(root)["sft"]
    reached = _stages(root, machine={"train_tokens_a_second": 10.0})["sft"]
    assert "10 tokens/s (reached last time)" in reached.basis
    assert reached.minutes > timed.minutes


@pytest.mark.parametrize(
    ("word", "stage"),
    [
        ("sft.epochs=6", "sft"),
        ("sft=dora", "sft"),
        ("profile.gradient_checkpointing=true", "sft"),
        ("profile.generate_batch=1", "evaluate"),
        ("evaluate.references=8", "evaluate"),
        ("evaluate.latency_inputs=100", "evaluate"),
    ],
)
def test_more_of_anything_costs_more(roots: Any, word: str, stage: str) -> None:
    assert _stages(roots(word))[stage].minutes > _stages(roots())[stage].minutes


def test_fewer_test_inputs_cost_less(roots: Any) -> None:
    assert _stages(roots("evaluate.inputs=20"))["evaluate"].minutes < _stages(roots())["evaluate"].minutes


def test_beams_cost_more_than_greedy(roots: Any) -> None:
    words = ["evaluate.decoding.method=beams", "evaluate.decoding.beams=4", "evaluate.decoding.length_penalty=1.0"]
    assert _stages(roots(*words))["evaluate"].minutes > 1.5 * _stages(roots())["evaluate"].minutes


def test_what_is_switched_off_costs_nothing_much(roots: Any) -> None:
    off = _stages(roots())["adapt"]
    assert (off.tokens, off.basis) == (0, "switched off")
    documents = {"document_characters": 3_600_000, "documents": 1000}
    on = _stages(roots("adapt=lora"), amounts=documents)["adapt"]
    assert on.tokens == 1_000_000
    assert on.minutes > 30


def test_writing_is_a_line_through_the_two_timed_batches() -> None:
    one = plan.write_seconds(1, 100, 1, SIZE, MACHINE)
    full = plan.write_seconds(32, 100, 32, SIZE, MACHINE)
    assert one == pytest.approx(100 * (30 * SPEED.write_one * plan.WRITE_FACTOR + SPEED.head))
    assert full == pytest.approx(100 * (30 * SPEED.write_batch * plan.WRITE_FACTOR + 32 * SPEED.head))
    assert one < plan.write_seconds(16, 100, 32, SIZE, MACHINE) < full
    assert plan.write_seconds(64, 100, 32, SIZE, MACHINE) == pytest.approx(2 * full)
    assert plan.write_seconds(0, 100, 32, SIZE, MACHINE) == 0

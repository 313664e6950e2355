"""Answers that are compared come from the very generator that evaluate asks."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tunectl.artifacts.records import Example, Message, Source
from tunectl.backends.wiring import preferences
from tunectl.config.schema.evaluate import Sampling
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.preferences.answer_cache import sample_answers

pytest.importorskip("torch")
PROFILE = HardwareProfile(
    device="cpu", threads=2, dtype="float32", train_batch_tokens=64, generate_batch=8, gradient_checkpointing=False
)
HOW = Sampling(method="sampling", max_new_tokens=16, temperature=2.0, top_p=1.0)


def test_a_real_model_writes_different_answers_and_the_same_again(tiny_model, tmp_path):
    inputs = [
        (Example(f"e{n}", Source("s", n), [Message("user", f"Write an ad for place {n}")]), f"p{n}") for n in range(6)
    ]
    tools = preferences.backend(PROFILE)
    with ExitStack() as stack:
        write = preferences.make_answer_writer(tools, tiny_model, None, HOW, "answers", stack)
        found = list(sample_answers(inputs, 4, lambda: write, 1, tmp_path / "one"))
        again = list(sample_answers(inputs, 4, lambda: write, 1, tmp_path / "two"))
        other = list(sample_answers(inputs, 4, lambda: write, 2, tmp_path / "three"))
    assert found == again
    assert found != other
    assert all(len(set(one.answers)) == 4 for one in found)
    assert all(text.strip() for one in found for text in one.answers)

"""Answers that are compared come from the very generator that evaluate asks."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tunectl.artifacts.records import Example, Message, Source
from tunectl.backends import preference_tools
from tunectl.config.evaluate import Sampling
from tunectl.config.profile import Profile
from tunectl.preferences.sampled import sample

pytest.importorskip("torch")
PROFILE = Profile(
    device="cpu", threads=2, dtype="float32", train_tokens=64, generate_batch=8, gradient_checkpointing=False
)
HOW = Sampling(method="sampling", max_new_tokens=16, temperature=2.0, top_p=1.0)


def test_a_real_model_writes_different_answers_and_the_same_again(tiny_model, tmp_path):
    inputs = [
        (Example(f"e{n}", Source("s", n), [Message("user", f"Write an ad for place {n}")]), f"p{n}") for n in range(6)
    ]
    tools = preference_tools.backend(PROFILE)
    with ExitStack() as stack:
        write = preference_tools.writer(tools, tiny_model, None, HOW, "answers", stack)
        found = list(sample(inputs, 4, lambda: write, 1, tmp_path / "one"))
        again = list(sample(inputs, 4, lambda: write, 1, tmp_path / "two"))
        other = list(sample(inputs, 4, lambda: write, 2, tmp_path / "three"))
    assert found == again
    assert found != other
    assert all(len(set(one.answers)) == 4 for one in found)
    assert all(text.strip() for one in found for text in one.answers)

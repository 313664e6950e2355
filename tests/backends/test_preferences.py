"""Answers that are compared come from the very generator that evaluate asks."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest

from tunectl.artifacts.records import Example, Message, Source
from tunectl.backends.wiring import preferences
from tunectl.chat.template import TemplateRefusedError
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
    tools = preferences.build_backend(PROFILE)
    with ExitStack() as stack:
        write = preferences.make_answer_writer(tools, tiny_model, None, HOW, "answers", stack)
        found = list(sample_answers(inputs, 4, lambda: write, 1, tmp_path / "one"))
        again = list(sample_answers(inputs, 4, lambda: write, 1, tmp_path / "two"))
        other = list(sample_answers(inputs, 4, lambda: write, 2, tmp_path / "three"))
    assert found == again
    assert found != other
    assert all(len(set(one.answers)) == 4 for one in found)
    assert all(text.strip() for one in found for text in one.answers)


def test_what_nobody_can_be_asked_gets_no_answer_and_holds_up_nobody(tiny_model):
    long, odd = Message("user", "long " * 5000), Message("user", "What?")
    rows = [Example(str(n), Source("s", n), [turn]) for n, turn in enumerate((long, Message("user", "Hi"), odd))]
    tools = preferences.build_backend(PROFILE)

    class Refuses:
        """A chat template that refuses a question."""

        def prompt(self, messages, tools):
            if messages == [odd]:
                raise TemplateRefusedError("the chat template refuses a conversation of user: no questions")
            return own.prompt(messages, tools)

    own = tools.prompter(tiny_model, None)
    with ExitStack() as stack:
        changed = replace(tools, prompter=lambda folder, adapter: Refuses())
        answers = preferences.make_answer_writer(changed, tiny_model, None, HOW, "answers", stack)(rows, 1)
    assert [bool(text) for text in answers] == [False, True, False]

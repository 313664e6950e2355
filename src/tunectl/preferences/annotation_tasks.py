"""Build annotation tasks from inputs and answers, some of them attention checks."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from tunectl.artifacts.records import Example
from tunectl.core.hashing import hash_to_id
from tunectl.preferences.annotation_store import AnnotationTask

CHECKS = 0.15
"""Attention checks as a share of the questions; how many are shown is ``annotate.queue.attention_rate``."""


def sample_inputs(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """Return at most ``count`` of the inputs, drawn with ``seed``; a larger sample begins with the same ones."""
    order = sorted((example for example in examples if example.messages), key=lambda item: hash_to_id(seed, item.id))
    return order[:count]


def make_task(example: Example, prompt: str, answers: Sequence[str], systems: Sequence[str]) -> AnnotationTask | None:
    """Return a task with two answers to one input; None where they are equal or one is empty: nobody could choose.

    ``prompt`` is the digest that equal inputs share; ``systems`` names the system that wrote each answer.
    """
    first, second = (text.strip() for text in answers)
    if not first or not second or first.split() == second.split():
        return None
    name = f"q-{hash_to_id(prompt, first, second)}"
    return AnnotationTask(
        id=name,
        prompt=prompt,
        source=example.source,
        messages=example.messages,
        answers=[first, second],
        systems=list(systems),
        fields=example.fields,
        tools=example.tools,
    )


def attention_checks(examples: Sequence[tuple[Example, str]], seed: int) -> Iterator[AnnotationTask]:
    """Yield attention checks: a reference of an input against a reference of another input. ``examples`` come with their prompt key."""
    having = [(item, prompt) for item, prompt in examples if item.answers]
    rng = random.Random(seed)  # noqa: S311  (no secret)
    for item, prompt in having[: round(CHECKS * len(having))]:
        others = [other for other, key in having if key != prompt and other.answers[0].text != item.answers[0].text]
        if others:
            wrong = rng.choice(others).answers[0].text
            right = item.answers[0].text
            name = f"q-{hash_to_id('attention', prompt, right, wrong)}"
            yield AnnotationTask(
                id=name,
                prompt=prompt,
                source=item.source,
                messages=item.messages,
                answers=[right, wrong],
                systems=["reference", "reference of another input"],
                attention=True,
                fields=item.fields,
                tools=item.tools,
            )

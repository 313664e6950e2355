"""Test items: an input as the model sees it, its references, and its cluster."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunectl.artifacts.records import Example, Message, ReferenceAnswer, Source
from tunectl.chat import tool_calls


@dataclass(frozen=True, slots=True)
class Item:
    """A test input as the model gets it, with its references, attributes and cluster."""

    id: str
    messages: tuple[Message, ...]
    """The conversation up to the answer; ends with a user or tool turn."""
    references: tuple[str, ...]
    fields: dict[str, str] = field(default_factory=dict)
    kind: str = "text"
    cluster: str = ""
    """Items of one cluster (near duplicates, or one group of the split) are resampled together."""
    tools: tuple[dict[str, Any], ...] = ()
    calls: tuple[bool, ...] = ()
    """Whether each reference ends with tool calls; empty: none does."""

    def turn(self, number: int) -> Message:
        """Return reference ``number`` (0-based) as an assistant turn that a template renders."""
        calls = bool(self.calls) and self.calls[number]
        return tool_calls.to_message(ReferenceAnswer(self.references[number], Source(self.id), calls))

    @property
    def question(self) -> str:
        """Return the last user turn, which checks and retrieval use."""
        for message in reversed(self.messages):
            if message.role == "user":
                return message.content
        return self.messages[-1].content


def from_examples(examples: Iterable[Example]) -> tuple[list[Item], dict[str, int]]:
    """Return (items, number of examples that cannot be items by reason).

    Raw segments and ready tokens have no separate input and answer, so no answer of a model can be compared with them.
    """
    items: list[Item] = []
    skipped: Counter[str] = Counter()
    for example in examples:
        answers = [answer for answer in example.answers if answer.text.strip()]
        if example.segments or example.tokens is not None:
            skipped["no_separate_answer"] += 1
        elif not example.messages or not answers:
            skipped["no_reference"] += 1
        else:
            items.append(
                Item(
                    id=example.id,
                    messages=tuple(example.messages),
                    references=tuple(answer.text for answer in answers),
                    fields=dict(example.fields),
                    kind=example.kind,
                    cluster=example.cluster or example.id,
                    tools=tuple(example.tools),
                    calls=tuple(answer.calls for answer in answers),
                )
            )
    return items, dict(skipped)


def sample_items(items: Sequence[Item], limit: int | None, seed: int) -> list[Item]:
    """Return at most ``limit`` items drawn with ``seed``, in their original order."""
    if limit is None or len(items) <= limit:
        return list(items)
    indexes = sorted(random.Random(seed).sample(range(len(items)), limit))  # noqa: S311 - a sample, not a secret
    return [items[index] for index in indexes]

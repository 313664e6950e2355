"""Render prompts with system text and worked examples, by the model's own chat template."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tunectl.artifacts.records import Message
from tunectl.chat.tool_calls import render_tool_calls
from tunectl.core.errors import DataError
from tunectl.evaluation.items import Item
from tunectl.evaluation.protocols import Generator, Index
from tunectl.evaluation.results import PromptDescription


class ChatRenderer(Protocol):
    """Renders a conversation by the model's chat template; ``tunectl.chat.template.Template`` is one."""

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[dict[str, Any]] = (),
    ) -> str:
        """Return the conversation as the text that the model reads, with the system text it was trained with."""


class FewShotRenderer:
    """Renders the prompts of an evaluation, and reference answers as they would follow them."""

    def __init__(self, renderer: ChatRenderer, end_of_turn: str) -> None:
        self._renderer = renderer
        self._end = end_of_turn

    def prompt(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> str:
        """Return the conversation as text up to where the answer begins."""
        return self._renderer.render(messages, add_generation_prompt=True, tools=tools)

    def answer(self, messages: Sequence[Message], turn: Message, tools: Sequence[dict[str, Any]] = ()) -> str:
        """Return the text of a right answer, the assistant's ``turn``, as it follows the prompt, up to and with the end of turn."""
        rendered = self._renderer.render([*messages, turn], tools=tools)
        prompt = self.prompt(messages, tools)
        if not rendered.startswith(prompt):  # the template writes a finished turn in another way than it opens one
            return render_tool_calls(turn) + self._end
        tail = rendered[len(prompt) :]
        stop = tail.rfind(self._end)
        return tail[: stop + len(self._end)] if stop >= 0 else tail


ZERO_SHOT = PromptDescription(system=None)
"""The input as in the data."""


class FewShotSampler:
    """Chooses few-shot examples from the training inputs, at random or the nearest to each input."""

    def __init__(self, pool: Sequence[Item], index: Index | None, seed: int) -> None:
        """``index`` is over the inputs of ``pool``; None where nothing is retrieved."""
        self._pool = pool
        self._index = index
        self._order = random.Random(seed).sample(range(len(pool)), len(pool))  # noqa: S311 - an order, not a secret

    def of(self, prompt: PromptDescription, items: Sequence[Item]) -> list[list[Item]]:
        """Return for each item its ``prompt.shots`` examples; the nearest one is last, right before the input."""
        count = min(prompt.shots, len(self._pool))
        if not count:
            return [[] for _ in items]
        if prompt.selection == "retrieved" and self._index is not None:
            result = self._index.nearest([item.question for item in items], count)
            return [[self._pool[index] for index in reversed(indexes)] for indexes in result]
        return [[self._pool[index] for index in self._order[:count]] for _ in items]


def conversation(item: Item, prompt: PromptDescription, examples: Sequence[Item]) -> list[Message]:
    """Return the messages of a prompt: system text, examples with their first reference, and the input's own turns."""
    own = [message for message in item.messages if message.role != "system"]
    system = [message for message in item.messages if message.role == "system"]
    if prompt.system is not None:
        system = [Message("system", prompt.system)]
    messages: list[Message] = []
    for example in examples:
        messages += [message for message in example.messages if message.role != "system"]
        messages.append(example.turn(0))
    return [*system, *messages, *own]


@dataclass(frozen=True, slots=True)
class RenderedPrompts:
    """Prompts of one system as text, one per item, with the rendered references whose likelihood is needed."""

    prompts: list[str]
    references: list[tuple[str, ...]]


def render_items(
    items: Sequence[Item], prompt: PromptDescription, shots: FewShotSampler, prompter: FewShotRenderer, references: int
) -> RenderedPrompts:
    """Return ``items`` as text, with system text and examples as ``prompt`` declares; at most ``references`` references each."""
    prompts, needs_neighbors = [], []
    for item, examples in zip(items, shots.of(prompt, items), strict=True):
        messages = conversation(item, prompt, examples)
        prompts.append(prompter.prompt(messages, item.tools))
        count = min(references, len(item.references))
        needs_neighbors.append(
            tuple(prompter.answer(messages, item.turn(number), item.tools) for number in range(count))
        )
    return RenderedPrompts(prompts, needs_neighbors)


def keep_answerable(
    items: Sequence[Item], prompter: FewShotRenderer, generator: Generator, *, new_tokens: int, references: int
) -> tuple[list[Item], dict[str, int]]:
    """Return the items that a model can be asked, and the number of the others by reason: one row must not end an evaluation.

    Left out is what the chat template refuses, and what is longer than the model's context, with ``new_tokens`` of an answer or
    with the longest of ``references`` references.
    """
    plain, shots = PromptDescription(system=None), FewShotSampler([], None, 0)
    rendered: list[tuple[Item, str, Sequence[str]]] = []
    left_out: Counter[str] = Counter()
    for item in items:
        try:
            one = render_items([item], plain, shots, prompter, references)
        except DataError:
            left_out["template_refuses"] += 1
        else:
            rendered.append((item, one.prompts[0], one.references[0]))
    prompts = generator.lengths([prompt for _, prompt, _ in rendered])
    lengths = iter(generator.lengths([answer for _, _, group in rendered for answer in group]))
    answers = [max((next(lengths) for _ in group), default=0) for _, _, group in rendered]
    limit = generator.context
    kept = [
        item
        for (item, _, _), prompt, answer in zip(rendered, prompts, answers, strict=True)
        if limit is None or prompt + max(new_tokens, answer) <= limit
    ]
    left_out["too_long"] = len(rendered) - len(kept)
    return kept, dict(+left_out)


def candidates(
    systems: Sequence[str | None], shots: Sequence[int], selections: Sequence[str]
) -> list[PromptDescription]:
    """Return every combination of system text, number of examples and selection as a prompt, those with fewest examples first.

    None in ``systems`` leaves the data's own system text, if any. Without examples the selection has no effect.
    """
    result = [
        PromptDescription(system, count, selection if count else None)
        for count in sorted(shots)
        for selection in selections
        for system in systems
    ]
    return list(dict.fromkeys(result))

"""Render prompts with system text and worked examples, by the model's own chat template."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tunectl.artifacts.records import Message
from tunectl.chat.template import TemplateRefusedError
from tunectl.chat.tool_calls import render_tool_calls
from tunectl.core import logging_setup
from tunectl.core.errors import DataError
from tunectl.evaluation.items import Item
from tunectl.evaluation.protocols import Index, TokenCounter
from tunectl.evaluation.results import PromptDescription

MAX_LEFT_OUT_SHARE = 0.2
"""Largest share of the inputs that is left out; what remains would say little of the others."""
_log = logging_setup.get_logger(__name__)


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
    items: Sequence[Item], prompter: FewShotRenderer, counter: TokenCounter, *, new_tokens: int, references: int
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
        except TemplateRefusedError:
            left_out["template_refuses"] += 1
        else:
            rendered.append((item, one.prompts[0], one.references[0]))
    prompts = counter.lengths([prompt for _, prompt, _ in rendered])
    lengths = iter(counter.lengths([answer for _, _, group in rendered for answer in group]))
    answers = [max((next(lengths) for _ in group), default=0) for _, _, group in rendered]
    limit = counter.context
    kept = [
        item
        for (item, _, _), prompt, answer in zip(rendered, prompts, answers, strict=True)
        if limit is None or prompt + max(new_tokens, answer) <= limit
    ]
    left_out["too_long"] = len(rendered) - len(kept)
    return kept, dict(+left_out)


def leave_out_unanswerable(
    items: Sequence[Item],
    models: Iterable[tuple[FewShotRenderer, TokenCounter]],
    *,
    new_tokens: int,
    references: int,
    inputs: str,
) -> tuple[list[Item], dict[str, int]]:
    """Return the items that every one of ``models`` can be asked, as ``keep_answerable`` finds them, and the number of the others by reason.

    All items are returned where none would be left: asking them is the error that says why. ``inputs`` names them in the message.
    Raises  DataError where more than ``MAX_LEFT_OUT_SHARE`` of them cannot be asked.
    """
    kept, left_out = list(items), Counter[str]()
    for prompter, counter in models:
        kept, reasons = keep_answerable(kept, prompter, counter, new_tokens=new_tokens, references=references)
        left_out.update(reasons)
    if not kept:
        return list(items), {}
    lost = len(items) - len(kept)
    if lost > MAX_LEFT_OUT_SHARE * len(items):
        raise DataError(
            f"{lost} of {len(items)} {inputs} cannot be asked ({format_reasons(left_out)}); at most {MAX_LEFT_OUT_SHARE:.0%} may be left out",
            hint="choose another model.chat_template, lower evaluate.decoding.max_new_tokens, or take such rows out of the data",
        )
    return kept, dict(left_out)


def keep_examples(pool: Sequence[Item], prompters: Sequence[FewShotRenderer]) -> list[Item]:
    """Return the items of ``pool`` that every template renders with their first reference: a refused one would end each prompt that shows it."""
    kept = []
    for item in pool:
        try:
            for prompter in prompters:
                prompter.answer(item.messages, item.turn(0), item.tools)
        except TemplateRefusedError:
            continue
        kept.append(item)
    if len(kept) < len(pool):
        _log.info(
            "%d of %d training inputs are no examples: the chat template refuses them", len(pool) - len(kept), len(pool)
        )
    return kept


def format_reasons(left_out: Mapping[str, int]) -> str:
    """Return numbers of inputs by reason as text: ``2 too_long, 1 template_refuses``."""
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items())


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

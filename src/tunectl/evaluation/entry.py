"""One competitor: where its answers come from, what they are, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tunectl.config.evaluate import Beams, Greedy, Sampling
from tunectl.core.errors import UsageError
from tunectl.evaluation.generator import Generator, Reply, Request
from tunectl.evaluation.items import Item
from tunectl.evaluation.prompts import Ready
from tunectl.evaluation.results import Cost, Prompt

TITLES = {
    "base": "Base",
    "prompted": "Best prompt",
    "nearest": "Nearest answer",
    "tuned": "Tuned",
    "aligned": "Aligned",
}
"""Name of a competitor to its title in tables."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A competitor with its answers, one an item."""

    name: str
    answers: list[str]
    replies: list[Reply] | None = None
    """None where no model wrote the answers."""
    prompt: Prompt | None = None
    cost: Cost | None = None

    @property
    def title(self) -> str:
        """In words."""
        return TITLES.get(self.name, self.name)


@dataclass(frozen=True, slots=True)
class Asking:
    """How a model is asked: decoding, seed, and how many inputs are also answered one at a time."""

    how: Greedy | Beams | Sampling
    seed: int
    latency_inputs: int


def answered(name: str, generator: Generator, ready: Ready, prompt: Prompt, asking: Asking) -> Entry:
    """Let a model answer all prompts, then a few of them one at a time to measure what one user waits.

    Raises  UsageError where a prompt and its answer do not fit the model's context.
    """
    refuse_too_long(generator, ready.prompts, asking.how.max_new_tokens)
    requests = [Request(text, given) for text, given in zip(ready.prompts, ready.references, strict=True)]
    replies = generator.answer(requests, asking.how, seed=asking.seed, label=f"answers: {TITLES.get(name, name)}")
    alone = [
        generator.answer([Request(text)], asking.how, seed=asking.seed, label="one at a time")[0]
        for text in ready.prompts[: asking.latency_inputs]
    ]
    return Entry(name, [reply.text for reply in replies], replies, prompt, cost(replies, alone))


def cost(replies: Sequence[Reply], alone: Sequence[Reply] = ()) -> Cost:
    """What answers took together, and one at a time."""
    seconds, tokens = sum(reply.seconds for reply in replies), sum(reply.tokens for reply in replies)
    waited, written = sum(reply.seconds for reply in alone), sum(reply.tokens for reply in alone)
    return Cost(
        answers=len(replies),
        prompt_tokens=sum(reply.prompt_tokens for reply in replies),
        tokens=tokens,
        seconds=seconds,
        tokens_per_second=tokens / seconds if seconds else None,
        one_at_a_time=median(reply.seconds for reply in alone) if alone else None,
        one_at_a_time_tokens_per_second=written / waited if waited else None,
    )


def refuse_too_long(generator: Generator, prompts: Sequence[str], new_tokens: int) -> None:
    """Refuse prompts that the model cannot read whole.

    Raises  UsageError with the longest prompt's tokens, the model's limit, and what to lower.
    """
    if generator.context is None or not prompts:
        return
    longest = max(generator.lengths(prompts))
    if longest + new_tokens > generator.context:
        raise UsageError(
            f"the longest prompt has {longest} tokens and the answer may have {new_tokens}, "
            f"but the model reads at most {generator.context}",
            hint="lower evaluate.decoding.max_new_tokens, or reject longer inputs: curate's and sft's length limits",
        )


def copied(pool: Sequence[Item], places: Sequence[Sequence[int]]) -> Entry:
    """The competitor that gives the first reference of the nearest training input."""
    return Entry("nearest", [pool[found[0]].references[0] if found else "" for found in places])

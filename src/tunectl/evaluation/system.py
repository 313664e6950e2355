"""One system of the comparison: the origin of its answers, the answers, and their cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tunectl.config.schema.evaluate import BeamSearch, Greedy, Sampling
from tunectl.core.errors import UsageError
from tunectl.evaluation.few_shot import RenderedPrompts
from tunectl.evaluation.items import Item
from tunectl.evaluation.protocols import GeneratedText, GenerationPrompt, Generator
from tunectl.evaluation.results import Cost, PromptDescription

TITLES = {
    "base": "Base",
    "prompted": "Best prompt",
    "nearest": "Nearest answer",
    "tuned": "Tuned",
    "aligned": "Aligned",
}
"""Title of each system in tables."""


@dataclass(frozen=True, slots=True)
class SystemResult:
    """The answers of one system, one per item, with its prompt and cost."""

    name: str
    answers: list[str]
    replies: list[GeneratedText] | None = None
    """None where no model generated the answers."""
    prompt: PromptDescription | None = None
    cost: Cost | None = None

    @property
    def title(self) -> str:
        """Name of the system as text, for tables."""
        return TITLES.get(self.name, self.name)


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """Settings of generation: decoding, seed, and how many inputs are also answered one at a time."""

    how: Greedy | BeamSearch | Sampling
    seed: int
    latency_inputs: int


def generate_answers(
    name: str, generator: Generator, ready: RenderedPrompts, prompt: PromptDescription, asking: GenerationSettings
) -> SystemResult:
    """Return the answers to all prompts; some are generated again one at a time, to measure a single user's wait.

    Raises  UsageError where a prompt and its answer exceed the model's context.
    """
    check_context_length(generator, ready.prompts, asking.how.max_new_tokens)
    requests = [
        GenerationPrompt(text, reference) for text, reference in zip(ready.prompts, ready.references, strict=True)
    ]
    replies = generator.answer(requests, asking.how, seed=asking.seed, label=f"answers: {TITLES.get(name, name)}")
    timed = [
        generator.answer([GenerationPrompt(text)], asking.how, seed=asking.seed, label="one at a time")[0]
        for text in ready.prompts[: asking.latency_inputs]
    ]
    return SystemResult(name, [reply.text for reply in replies], replies, prompt, cost(replies, timed))


def cost(replies: Sequence[GeneratedText], timed: Sequence[GeneratedText] = ()) -> Cost:
    """Return tokens and seconds of ``replies``, generated in batches, and of ``timed``, generated one at a time."""
    seconds, tokens = sum(reply.seconds for reply in replies), sum(reply.tokens for reply in replies)
    wait_seconds, token_count = sum(reply.seconds for reply in timed), sum(reply.tokens for reply in timed)
    return Cost(
        answers=len(replies),
        prompt_tokens=sum(reply.prompt_tokens for reply in replies),
        tokens=tokens,
        seconds=seconds,
        tokens_per_second=tokens / seconds if seconds else None,
        one_at_a_time=median(reply.seconds for reply in timed) if timed else None,
        one_at_a_time_tokens_per_second=token_count / wait_seconds if wait_seconds else None,
    )


def check_context_length(generator: Generator, prompts: Sequence[str], new_tokens: int) -> None:
    """Raise where a prompt with ``new_tokens`` generated tokens exceeds the model's context.

    Raises  UsageError with the longest prompt's tokens, the model's limit, and what to lower.
    """
    if generator.context is None or not prompts:
        return
    longest = max(generator.lengths(prompts))
    if longest + new_tokens > generator.context:
        raise UsageError(
            f"the longest prompt has {longest} tokens and the answer may have {new_tokens}, "
            f"but the model reads at most {generator.context}",
            hint="lower evaluate.decoding.max_new_tokens or evaluate.prompts.shots, or leave longer inputs out of the data",
        )


def retrieval_baseline(pool: Sequence[Item], indexes: Sequence[Sequence[int]]) -> SystemResult:
    """Return the system that answers with the first reference of the nearest training input.

    ``indexes`` has for each test input the positions in ``pool`` of its nearest ones, nearest first; the answer is empty without any.
    """
    return SystemResult("nearest", [pool[result[0]].references[0] if result else "" for result in indexes])

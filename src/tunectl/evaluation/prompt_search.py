"""Search for the best prompt of the base model, with which tuning is compared: every candidate answers the same validation inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunectl.core import logging_setup
from tunectl.core.errors import DataError
from tunectl.evaluation import few_shot
from tunectl.evaluation.few_shot import FewShotRenderer, FewShotSampler
from tunectl.evaluation.items import Item
from tunectl.evaluation.protocols import GenerationPrompt, Generator
from tunectl.evaluation.results import Candidate, PromptDescription, Search
from tunectl.evaluation.system import GenerationSettings

_log = logging_setup.get_logger(__name__)

PromptScorer = Callable[[Sequence[Item], Sequence[str]], float]
"""Returns the primary metric of items and their answers; more is better."""


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """Limits of a prompt search, checked before each candidate runs, so it is reproducible."""

    tokens: int
    """Most tokens of prompts and answers of all candidates together."""
    asked_later: Sequence[Item] = ()
    """Test inputs, whose prompts must not exceed the model's context, either."""


def search(
    generator: Generator,
    items: Sequence[Item],
    descriptions: Sequence[PromptDescription],
    *,
    shots: FewShotSampler,
    prompter: FewShotRenderer,
    asking: GenerationSettings,
    budget: TokenBudget,
    judge: PromptScorer,
) -> Search:
    """Return the results of all prompts that fit the budget, tried in order; of equal ones the first wins, and cheaper ones come first.

    The first candidate is always tried. A candidate that would exceed the budget, or the model's context, also in a prompt of a
    test input, is listed with the reason, and so is one with an example that the chat template refuses.
    """
    candidates: list[Candidate] = []
    spent = 0
    for candidate in descriptions:
        try:
            rendered, later = (
                few_shot.render_items(some, candidate, shots, prompter, references=0).prompts
                for some in (items, budget.asked_later)
            )
        except DataError as error:
            if not candidates:
                raise
            candidates.append(Candidate(candidate, None, 0, 0.0, error.message))
            continue
        lengths = generator.lengths(rendered)
        most = sum(lengths) + len(items) * asking.how.max_new_tokens
        longest = max([*lengths, *generator.lengths(later)])
        why_not = _refusal(longest, most, spent, generator.context, asking, budget) if candidates else ""
        if why_not:
            candidates.append(Candidate(candidate, None, most, 0.0, why_not))
            continue
        label = f"prompt {len(candidates) + 1} of {len(descriptions)}"
        replies = generator.answer(
            [GenerationPrompt(text) for text in rendered], asking.how, seed=asking.seed, label=label
        )
        tokens = sum(reply.prompt_tokens + reply.tokens for reply in replies)
        score = judge(items, [reply.text for reply in replies])
        spent += tokens
        candidates.append(Candidate(candidate, score, tokens, sum(reply.seconds for reply in replies)))
        _log.info("prompt %s: %.2f", describe(candidate), score)
    scored = [index for index, candidate in enumerate(candidates) if candidate.score is not None]
    best = max(scored, key=lambda index: (candidates[index].score or 0.0, -index))
    return Search(len(items), candidates, best, spent, sum(candidate.seconds for candidate in candidates))


def _refusal(
    longest: int,
    maximum: int,
    spent: int,
    context: int | None,
    asking: GenerationSettings,
    budget: TokenBudget,
) -> str:
    if context is not None and longest + asking.how.max_new_tokens > context:
        return f"longer than the model's context of {context} tokens"
    if spent + maximum > budget.tokens:
        return f"over the budget of {budget.tokens} tokens"
    return ""


def describe(prompt: PromptDescription) -> str:
    """Return a prompt as a short text, for example ``own system text, 3 retrieved examples``."""
    system = "own system text" if prompt.system is None else f'"{prompt.system}"'
    if not prompt.shots:
        return f"{system}, no examples"
    return f"{system}, {prompt.shots} {prompt.selection} example{'' if prompt.shots == 1 else 's'}"

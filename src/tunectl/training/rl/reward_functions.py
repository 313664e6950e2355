"""The declared reward: a weighted sum of a reward model, checks, and penalties on length and repetition.

Each term is normalized, clipped and weighted as declared. An answer that was cut gets no reward: its total is NaN,
and it is left out of every mean.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from tunectl.config.schema.align import CheckTerm, LengthTerm, RewardModelTerm, RewardTerm
from tunectl.config.schema.evaluate import Check
from tunectl.training.reward.protocols import RewardModel, ScoredPrompt
from tunectl.training.rl.rl_types import Completion, Prompt, RewardBreakdown

Checked = Callable[[Check, str, str, Mapping[str, str]], float | None]
"""Returns a score from 0 to 1 for check, answer, input and fields, or None where the check does not apply."""


class RewardFunction:
    """Computes the terms of ``align.rewards``; implements ``training.rl.rl_types.Rewards``."""

    def __init__(self, terms: Sequence[RewardTerm], *, checked: Checked, model: RewardModel | None) -> None:
        """Use ``checked`` to score an answer by a declared check; ``model`` (reward model) is None only where no term needs it."""
        self._terms = {name_of(term): term for term in terms}
        self._checked = checked
        self._model = model

    def score(
        self, prompts: Sequence[Prompt], answers: Sequence[Completion], *, fixed: bool = False
    ) -> list[RewardBreakdown]:
        """Return one reward per answer (NaN where it was cut); ``prompts`` has the prompt of each.

        ``fixed`` skips the normalization over the answers of a step, so that validations are comparable.
        """
        indexes = [index for index, answer in enumerate(answers) if answer.finished]
        finished_prompts = [prompts[index] for index in indexes]
        finished_answers = [answers[index] for index in indexes]
        totals = [0.0] * len(finished_answers)
        parts: list[dict[str, float]] = [{} for _ in finished_answers]
        for name, term in self._terms.items():
            values = impute_mean(self._values(term, finished_prompts, finished_answers))
            for index, (value, worth) in enumerate(
                zip(values, normalize_and_clip(values, term, fixed=fixed), strict=True)
            ):
                parts[index][name] = value
                totals[index] += term.weight * worth
        marks = [RewardBreakdown(math.nan, {})] * len(answers)
        for index, total, part in zip(indexes, totals, parts, strict=True):
            marks[index] = RewardBreakdown(total, part)
        return marks

    def _values(self, term: RewardTerm, prompts: Sequence[Prompt], answers: Sequence[Completion]) -> list[float | None]:
        if isinstance(term, RewardModelTerm):
            return list(self._score_with_reward_model(term, prompts, answers))
        if isinstance(term, CheckTerm):
            pairs = zip(prompts, answers, strict=True)
            return [
                self._checked(term.check, answer.text, prompt.last_message, prompt.fields) for prompt, answer in pairs
            ]
        if isinstance(term, LengthTerm):
            return [length_penalty(len(answer.ids) - answer.finished, term) for answer in answers]
        return [-ngram_repetition(answer.text.split(), term.size) for answer in answers]

    def _score_with_reward_model(
        self, term: RewardModelTerm, prompts: Sequence[Prompt], answers: Sequence[Completion]
    ) -> list[float]:
        assert self._model is not None
        if not answers:
            return []
        scores = self._model.score(
            [ScoredPrompt(prompt.messages, prompt.tools) for prompt in prompts],
            [answer.text for answer in answers],
        )
        return [score.value - term.uncertainty_penalty * score.spread for score in scores]


def name_of(term: RewardTerm) -> str:
    """Return the name of a reward term in tables: its method, or the check's name."""
    return f"check_{term.check.name}" if isinstance(term, CheckTerm) else term.method


def impute_mean(values: Sequence[float | None]) -> list[float]:
    """Return ``values`` with None replaced by the mean of the others, so that a check that does not apply has no effect."""
    numbers = [value for value in values if value is not None]
    usual = statistics.fmean(numbers) if numbers else 0.0
    return [usual if value is None else value for value in values]


def normalize_and_clip(values: Sequence[float], term: RewardTerm, *, fixed: bool) -> list[float]:
    """Return ``values`` normalized over the step (if ``term`` declares it and ``fixed`` is false), then clipped."""
    result = list(values)
    if term.normalize == "step" and not fixed and len(result) > 1:
        middle, spread = statistics.fmean(result), statistics.pstdev(result)
        result = [(value - middle) / spread if spread > 0 else 0.0 for value in result]
    if term.clip is None:
        return result
    # comparisons with NaN are false, so it passes and is named by whoever reads the total
    return [math.copysign(term.clip, value) if abs(value) > term.clip else value for value in result]


def length_penalty(tokens: int, term: LengthTerm) -> float:
    """Return 0 for a number of ``tokens`` inside the declared range, falling linearly to -1 at ``soft`` tokens outside."""
    excess = max(term.min_tokens - tokens, tokens - term.max_tokens, 0)
    return -min(1.0, excess / term.soft)


def ngram_repetition(words: Sequence[str], size: int) -> float:
    """Return the share of the n-grams (``size`` words each) that repeat an earlier one, 0 to 1."""
    runs = list(zip(*(words[start:] for start in range(size)), strict=False))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0

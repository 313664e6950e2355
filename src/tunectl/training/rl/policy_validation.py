"""Validate a policy on greedy answers: compare it with sft, and detect reward hacking.

A policy that exploits its reward without being better is detected by a metric that is not in the reward: the reward
rises while the metric falls. Both are compared with the first validation on the same inputs, by a paired bootstrap, so that noise
alone stops nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from tunectl.config.schema.align import ValidationConfig
from tunectl.core.errors import UsageError
from tunectl.stats import bootstrap
from tunectl.training.rl.reward_functions import ngram_repetition
from tunectl.training.rl.rl_types import Completion, Prompt, RewardBreakdown, ValidationPoint, ValidationScorer

if TYPE_CHECKING:
    from numpy.typing import NDArray

RUN = 3
"""Length in words of a run that counts as repeated."""


class ValidationSample(Struct, frozen=True):
    """Measurements of one validation, one entry per input."""

    step: int
    rewards: tuple[float | None, ...]
    """Rewards; None for answers that were cut."""
    statistics: tuple[tuple[float, ...], ...]
    """Statistics of the independent metric, (inputs, statistics)."""
    kl: tuple[float, ...]
    """KL of each answer, nats."""
    lengths: tuple[int, ...]
    """Tokens of each answer, including the end of turn."""
    repetition: tuple[float, ...]
    truncated: tuple[bool, ...]
    clusters: tuple[str, ...]
    """Inputs of one cluster are not independent."""


def measure_validation(
    step: int,
    prompts: Sequence[Prompt],
    answers: Sequence[Completion],
    marks: Sequence[RewardBreakdown],
    kl: Sequence[float],
    measure: ValidationScorer,
) -> ValidationSample:
    """Return the measurements of one validation: reward, independent metric, KL (nats per answer), length, repetition.

    All sequences have one entry per validation input, in one order.
    Raises  UsageError where every answer was cut at the token limit, since then none has a reward; and where the metric is NaN,
            as that of a check that applies to no input.
    """
    if not any(answer.finished for answer in answers):
        raise all_truncated(step, len(answers), max(len(answer.ids) for answer in answers))
    table = measure(prompts, [answer.text for answer in answers])
    if not math.isfinite(float(measure.combine(table.sum(axis=0)))):
        raise UsageError(
            f"align: {measure.name} is not a number on the {len(prompts)} validation inputs, so nothing can be validated",
            hint="declare an align.validation.metric that applies to them, for example {method: score, name: chrf}",
        )
    return ValidationSample(
        step=step,
        rewards=tuple(None if math.isnan(mark.total) else mark.total for mark in marks),
        statistics=tuple(tuple(float(value) for value in row) for row in table),
        kl=tuple(kl),
        lengths=tuple(len(answer.ids) for answer in answers),
        repetition=tuple(ngram_repetition(answer.text.split(), RUN) for answer in answers),
        truncated=tuple(not answer.finished for answer in answers),
        clusters=tuple(prompt.cluster or prompt.id for prompt in prompts),
    )


def all_truncated(step: int, answers: int, limit: int) -> UsageError:
    """Return the error for ``step``, whose ``answers`` answers were all cut at ``limit`` tokens."""
    return UsageError(
        f"align: all {answers} answers of step {step} were cut at {limit} tokens, so none could be rewarded",
        hint=f"raise align.max_new_tokens (now {limit})",
    )


def compare_with_start(
    now: ValidationSample, first: ValidationSample, measure: ValidationScorer, settings: ValidationConfig, seed: int
) -> ValidationPoint:
    """Return the means of validation ``now``, and their changes since ``first``, the validation before the first step.

    In both, at least one answer must have ended before the token limit.
    """
    import numpy as np

    def bootstrap_difference(
        one: NDArray[Any], other: NDArray[Any], combine: bootstrap.Combine
    ) -> bootstrap.PairedDifference | None:
        left, right = (bootstrap.sum_by_group(table, now.clusters) for table in (one, other))
        return bootstrap.difference(left, right, combine, draws, settings.confidence)

    draws = bootstrap.resample_counts(len(set(now.clusters)), settings.resamples, seed)
    current, initial = np.asarray(now.statistics), np.asarray(first.statistics)
    change = bootstrap_difference(current, initial, measure.combine)
    if change is not None:
        metric_change, low, high = change.value, change.low, change.high
    else:
        metric_change, low, high = _unsure(
            float(measure.combine(current.sum(axis=0)) - measure.combine(initial.sum(axis=0)))
        )
    start = _mean(first.rewards)
    rise = bootstrap_difference(
        _build_sums_and_counts(now.rewards), _build_sums_and_counts(first.rewards), _divide_sums_by_counts
    )
    reward_low, reward_high = (start + rise.low, start + rise.high) if rise else (None, None)
    rewards = [value for value in now.rewards if value is not None]
    return ValidationPoint(
        step=now.step,
        reward=_mean(now.rewards),
        reward_low=reward_low,
        reward_high=reward_high,
        metric=float(measure.combine(current.sum(axis=0))),
        metric_change=metric_change,
        metric_low=low,
        metric_high=high,
        kl=statistics.fmean(now.kl),
        length=statistics.fmean(now.lengths),
        repetition=statistics.fmean(now.repetition),
        spread=statistics.pstdev(rewards) if rewards else 0.0,
        truncated=statistics.fmean(now.truncated),
        within=metric_change >= -settings.tolerance,
    )


def _unsure(change: float) -> tuple[float, float, float]:
    """Return a change without an interval, as for inputs in a single cluster: nothing can be concluded."""
    return change, -100.0, 100.0


def detect_reward_hacking(
    point: ValidationPoint, first: ValidationPoint, measure: str, settings: ValidationConfig
) -> str | None:
    """Return why to stop, as a sentence; None where there is no reason.

    The reward must have risen, the metric fallen by more than the tolerance, and the whole paired interval of its fall must
    be below zero. In training on judgments (dpo, kto) there is no reward, and the fall is enough.
    """
    if point.within or point.metric_high >= 0:
        return None
    fell = (
        f"{measure} had fallen by {-point.metric_change:.1f} points (interval {-point.metric_high:.1f} to "
        f"{-point.metric_low:.1f}); align.validation.tolerance allows {settings.tolerance:g}"
    )
    if point.held_out_loss is not None:
        return f"at step {point.step} {fell}"
    if point.reward > first.reward:
        return f"at step {point.step} the reward had risen from {first.reward:.3f} to {point.reward:.3f} while {fell}"
    return None


def best_checkpoint(points: Sequence[ValidationPoint]) -> ValidationPoint:
    """Return the validation with the highest mean reward among those whose metric is within tolerance; the first of equals.

    The validation before the first step is always within tolerance, so a policy that never improved gets the weights of sft.
    For dpo and kto the lowest loss on held-out judgments decides: their rising reward shows only that the policy has moved.
    """
    fit = [item for item in points if item.within]
    losses = {item.step: item.held_out_loss for item in fit if item.held_out_loss is not None}
    if len(losses) == len(fit):
        return min(fit, key=lambda item: (losses[item.step], item.step), default=points[0])
    return max(fit, key=lambda item: (item.reward, -item.step), default=points[0])


def _mean(values: Sequence[float | None]) -> float:
    return statistics.fmean(value for value in values if value is not None)


def _build_sums_and_counts(values: Sequence[float | None]) -> NDArray[Any]:
    """Return totals and counts, so that an answer without a reward is left out of means."""
    import numpy as np

    return np.asarray([(0.0, 0.0) if value is None else (value, 1.0) for value in values])


def _divide_sums_by_counts(sums: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        result: NDArray[Any] = np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan)
    return result

"""Test the reward model that trained a policy on the policy's own answers: does an independent judge order them in the same way?"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, pi, sqrt
from typing import NamedTuple

from tunectl.evaluation import win_rate
from tunectl.evaluation.alignment_facts import ShareEstimate
from tunectl.evaluation.results import InputScores
from tunectl.evaluation.win_rate import PairOutcome, WinRateSettings

MEAN_DISTANCE_OF_TWO_NORMALS = 2 / sqrt(pi)
"""Mean distance of two draws from a normal distribution, in standard deviations."""


class JudgedOrder(NamedTuple):
    """Outcomes of one judge for every input: 1 where it prefers the aligned answer, 0 the tuned one, 0.5 for a tie."""

    judge: str
    outcomes: Sequence[float]
    accuracy: float
    """Share of pairs on which this judge is right, 0 to 1; rules are right by definition."""


def order_by_scores(aligned: Sequence[float], tuned: Sequence[float], tie: float) -> list[float]:
    """Return for each pair of scores 1 (aligned is higher), 0 (tuned is), or 0.5 where they differ by no more than ``tie``."""
    return [win_rate.outcome(own, other, tie) for own, other in zip(aligned, tuned, strict=True)]


def order_by_rules(rows: Sequence[InputScores], reward_terms: Sequence[str]) -> JudgedOrder | None:
    """Return which answer, aligned or tuned, is better on each input by slot errors, else by declared checks; None without either.

    Checks are no independent judge where the policy was rewarded for a check (``reward_terms``).
    """
    rewarded = any(name.startswith("check_") for name in reward_terms)
    for measure, sign in (("slot_error", -1.0), *(() if rewarded else (("checks", 1.0),))):
        if rows and all(measure in row.statistics[system] for row in rows for system in ("aligned", "tuned")):
            values = [[sign * row.statistics[name][measure][0] for row in rows] for name in ("aligned", "tuned")]
            name = "slots" if measure == "slot_error" else measure
            return JudgedOrder(name, order_by_scores(values[0], values[1], 1e-9), 1.0)
    return None


def measure_agreement(
    first: Sequence[float], second: Sequence[float], clusters: Sequence[str], counting: WinRateSettings
) -> ShareEstimate | None:
    """Return the share of inputs on which two judges prefer the same answer, of those on which neither sees a tie; None without one.

    ``first``, ``second`` (the judges' outcomes) and ``clusters`` have one entry per input, in one order.
    """
    pairs = [
        PairOutcome(float(own == other), cluster, "", "")
        for own, other, cluster in zip(first, second, clusters, strict=True)
        if 0.5 not in (own, other)
    ]
    return None if not pairs else ShareEstimate(*win_rate.estimate_share(pairs, counting), len(pairs))


def measure_wins(outcomes: Sequence[float], clusters: Sequence[str], counting: WinRateSettings) -> ShareEstimate:
    """Return the share of inputs on which the aligned answer is preferred, ties half; ``clusters`` has that of each input."""
    pairs = [PairOutcome(value, cluster, "", "") for value, cluster in zip(outcomes, clusters, strict=True)]
    return ShareEstimate(*win_rate.estimate_share(pairs, counting), len(pairs))


def expect_agreement(first: float, second: float) -> float:
    """Return how often two judges of accuracy ``first`` and ``second`` (0 to 1) agree, if they err independently."""
    return first * second + (1 - first) * (1 - second)


def bradley_terry_win_probability(spread: float, scale: float) -> float:
    """Return the probability, by Bradley and Terry's model, that the better of two answers to one prompt wins.

    Their scores differ by the mean distance of two draws with standard deviation ``spread``; ``scale``: logits per unit of the score.
    """
    return 1 / (1 + exp(-MEAN_DISTANCE_OF_TWO_NORMALS * spread * scale))

"""Win rate of one system against another: blind pairs, ties counted half.

The interval comes from a bootstrap over clusters of inputs (near duplicates, and several judgments of one input, are no
independent samples); where all pairs have the same outcome the bootstrap interval has no width, and Wilson's interval of the clusters is used.
Judges prefer long answers, so the lengths of winners and losers are given with the rate, and the rate is also given among pairs of
about equal length (after the length-controlled win rate of Dubois et al., "Length-Controlled AlpacaEval", 2024, by matching
instead of a regression).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Literal, NamedTuple

from tunectl.evaluation import paired_comparison
from tunectl.evaluation.results import CloseRate, WinRate
from tunectl.stats.proportion_ci import wilson_interval

JudgeName = Literal["reward", "checks", "slots", "llm", "people"]


class PairOutcome(NamedTuple):
    """Outcome of one comparison of two systems' answers to one input."""

    outcome: float
    """1: the first system's answer won. 0: it lost. 0.5: a tie."""
    cluster: str
    """Pairs of one cluster are resampled together."""
    first: str
    """Answer of the first system."""
    second: str

    @property
    def swapped(self) -> PairOutcome:
        """The outcome with the two systems exchanged."""
        return PairOutcome(1 - self.outcome, self.cluster, self.second, self.first)


class WinRateSettings(NamedTuple):
    """Settings of win rates: their bootstrap intervals, and when two answers are about equally long."""

    close: float
    """Word counts that differ by at most this share of the longer one are about equal."""
    resamples: int
    confidence: float
    seed: int


def outcome(own: float, other: float, tie: float) -> float:
    """Return 1 where the score ``own`` is higher than ``other``, 0 where lower, 0.5 where they differ by no more than ``tie``."""
    return 0.5 if abs(own - other) <= tie else float(own > other)


def rate(
    judge: JudgeName,
    outcomes: Sequence[PairOutcome],
    counting: WinRateSettings,
    *,
    flips: int | None = None,
    note: str = "",
) -> WinRate:
    """Return the win rate of the first system, with its interval.

    ``flips``: pairs judged differently when the positions were swapped. ``note``: a remark for the report.

    A pair of equal answers is a tie whatever its outcome. Without pairs ``rate`` is None, with the reason in ``absent``.
    """
    fair = [pair._replace(outcome=0.5) if pair.first.strip() == pair.second.strip() else pair for pair in outcomes]
    if not fair:
        return make_unjudged(judge, "there is no pair to judge")
    won = [pair for pair in fair if pair.outcome == 1]
    lost = [pair for pair in fair if pair.outcome == 0]
    lengths = [
        (_count_words(d.first), _count_words(d.second))
        if d.outcome == 1
        else (_count_words(d.second), _count_words(d.first))
        for d in won + lost
    ]
    unequal = [winner > loser for winner, loser in lengths if winner != loser]
    value, low, high = estimate_share(fair, counting)
    return WinRate(
        judge=judge,
        pairs=len(fair),
        units=len({pair.cluster for pair in fair}),
        wins=len(won),
        losses=len(lost),
        ties=len(fair) - len(won) - len(lost),
        rate=value,
        low=low,
        high=high,
        winner_words=fmean(winner for winner, _ in lengths) if lengths else None,
        loser_words=fmean(loser for _, loser in lengths) if lengths else None,
        longer_wins=sum(unequal) / len(unequal) if unequal else None,
        close=_close(fair, counting),
        flips=flips,
        note=note,
    )


def make_unjudged(judge: JudgeName, reason: str) -> WinRate:
    """Return a ``WinRate`` without judgments: ``rate`` is None, and ``absent`` is ``reason``."""
    return WinRate(judge=judge, absent=reason)


def have_similar_lengths(first: str, second: str, close: float) -> bool:
    """Return whether the word counts of two answers differ by at most the share ``close`` (0 to 1) of the longer one."""
    first_length, other = _count_words(first), _count_words(second)
    return abs(first_length - other) <= close * max(first_length, other)


def _close(outcomes: Iterable[PairOutcome], counting: WinRateSettings) -> CloseRate | None:
    close = [pair for pair in outcomes if have_similar_lengths(pair.first, pair.second, counting.close)]
    if not close:
        return None
    return CloseRate(len(close), *estimate_share(close, counting))


def estimate_share(outcomes: Sequence[PairOutcome], counting: WinRateSettings) -> tuple[float, float, float]:
    """Return (mean outcome, lower end, upper end of its interval), from 0 to 1; ``outcomes`` holds at least one."""
    import numpy as np

    clusters = [pair.cluster for pair in outcomes]
    value = fmean(pair.outcome for pair in outcomes)
    if len({pair.outcome for pair in outcomes}) > 1:
        plan = paired_comparison.make_resampling(
            clusters, resamples=counting.resamples, confidence=counting.confidence, seed=counting.seed
        )
        result = paired_comparison.score("win_rate", np.asarray([(pair.outcome, 1.0) for pair in outcomes]), plan)
        if result is not None and result.low is not None and result.high is not None and result.low < result.high:
            return value, result.low / 100, result.high / 100
    units = len(set(clusters))
    return (value, *wilson_interval(value * units, units, level=counting.confidence))


def _count_words(text: str) -> int:
    return len(text.split())


def title(name: str) -> str:
    """Return the name of a judge as text, for tables."""
    return {
        "reward": "Reward judge",
        "checks": "Declared checks",
        "slots": "Slot errors",
        "llm": "Language model",
        "people": "People",
    }.get(name, name)


def points_over_half(result: WinRate) -> tuple[float, float, float] | None:
    """Return (value, lower end, upper end) of a win rate in points over 50 %, as the verdict uses it; None where nobody judged."""
    if result.rate is None or result.low is None or result.high is None:
        return None
    return 100 * result.rate - 50, 100 * result.low - 50, 100 * result.high - 50

"""Compare the aligned with the tuned system pair by pair: win rates by each judge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tunectl.artifacts.records import Comparison
from tunectl.config.schema.evaluate import Evaluate
from tunectl.config.schema.evaluate import LlmJudge as JudgeSettings
from tunectl.evaluation import llm_judge as judging
from tunectl.evaluation import win_rate
from tunectl.evaluation.items import Item, sample_items
from tunectl.evaluation.results import WinRate
from tunectl.evaluation.scoring import Statistics
from tunectl.evaluation.system import SystemResult
from tunectl.evaluation.win_rate import PairOutcome, WinRateSettings

ALIGNED, TUNED = frozenset({"aligned", "align"}), frozenset({"tuned", "sft"})
"""Names of the two systems in judgments."""
OF_PEOPLE: Final = (
    "about answers to inputs of train or validation, from the models that there were when the questions were prepared"
)
"""Remark on their win rate: tasks name systems, and not weights."""


@dataclass(frozen=True, slots=True)
class JudgeInputs:
    """Reward scores and people's judgments for the win rates; a text instead of either says why there are none."""

    scores: Mapping[str, Sequence[float]] | str
    """Scores of each answer by system, from the reward judge, in standard deviations."""
    judgments: Sequence[Comparison] | str
    trust: str = ""
    """Accuracy of the reward judge on held-out pairs, as text."""


@dataclass(frozen=True, slots=True)
class AlignedPair:
    """Answers and statistics of the aligned and the tuned system on the same inputs."""

    items: Sequence[Item]
    aligned: SystemResult
    tuned: SystemResult
    tables: Mapping[str, Statistics]
    """Statistics of both, by system."""

    def build_outcome(self, index: int, outcome: float) -> PairOutcome:
        """Return the outcome (1: aligned won, 0: tuned won, 0.5: tie) for input ``index`` with the answers of both systems."""
        return PairOutcome(outcome, self.items[index].cluster, self.aligned.answers[index], self.tuned.answers[index])


def win_rates(
    match: AlignedPair, cfg: Evaluate, judge: judging.JudgeClient | None, panel: JudgeInputs, counting: WinRateSettings
) -> list[WinRate]:
    """Return the win rates of the aligned against the tuned system, one per judge; one without judgments has the reason instead."""
    return [
        by_scores(match, panel, cfg.aligned.tie_threshold, counting),
        by_checks(match, counting),
        by_slots(match, counting),
        by_language_model(match, cfg.judge, judge, counting),
        by_people(panel, counting),
    ]


def by_scores(match: AlignedPair, panel: JudgeInputs, tie: float, counting: WinRateSettings) -> WinRate:
    """Return aligned's win rate against tuned by the reward judge: the higher score wins; a tie where they differ by at most ``tie``.

    ``rate`` is None, with the reason in ``absent``, where there are no scores.
    """
    if isinstance(panel.scores, str):
        return win_rate.make_unjudged("reward", panel.scores)
    pairs = zip(panel.scores[match.aligned.name], panel.scores[match.tuned.name], strict=True)
    outcomes = [
        match.build_outcome(index, win_rate.outcome(own, other, tie)) for index, (own, other) in enumerate(pairs)
    ]
    return win_rate.rate("reward", outcomes, counting, note=panel.trust)


def by_checks(match: AlignedPair, counting: WinRateSettings) -> WinRate:
    """Return aligned's win rate against tuned by declared checks: the answer that passes more wins.

    Inputs to which no check applies are left out; where none is left, ``rate`` is None, with the reason in ``absent``.
    """
    if "checks" not in match.tables[match.tuned.name]:
        return win_rate.make_unjudged("checks", "evaluate.checks is empty")
    own, other = (match.tables[item.name]["checks"] for item in (match.aligned, match.tuned))
    outcomes = [
        match.build_outcome(index, win_rate.outcome(float(own[index, 0]), float(other[index, 0]), 1e-9))
        for index in range(len(match.items))
        if own[index, 1]
    ]
    return win_rate.rate("checks", outcomes, counting)


def by_slots(match: AlignedPair, counting: WinRateSettings) -> WinRate:
    """Return aligned's win rate against tuned by slot errors: the answer with fewer errors wins.

    Inputs without attributes are left out; where none is left, ``rate`` is None, with the reason in ``absent``.
    """
    if "slot_error" not in match.tables[match.tuned.name]:
        return win_rate.make_unjudged("slots", "evaluate.slots is null")
    own, other = (match.tables[item.name]["slot_error"] for item in (match.aligned, match.tuned))
    outcomes = [
        match.build_outcome(index, win_rate.outcome(-float(own[index, 0]), -float(other[index, 0]), 0))
        for index in range(len(match.items))
        if own[index, 1]
    ]
    return win_rate.rate("slots", outcomes, counting)


def by_language_model(
    match: AlignedPair, cfg: JudgeSettings | None, judge: judging.JudgeClient | None, counting: WinRateSettings
) -> WinRate:
    """Return aligned's win rate against tuned by the declared language model, asked in both orders.

    A choice that changes with the order is a tie. ``rate`` is None, with the reason in ``absent``, where no judge is declared.
    """
    if cfg is None or judge is None:
        return win_rate.make_unjudged("llm", "evaluate.judge is null")
    sample = set(map(id, sample_items(match.items, cfg.inputs, counting.seed)))
    indexes = [index for index, item in enumerate(match.items) if id(item) in sample]
    pairs = [
        judging.Pair(match.items[index], match.aligned.answers[index], match.tuned.answers[index]) for index in indexes
    ]
    result = judging.judge_both_orders(pairs, cfg.question, judge)
    outcomes = [
        match.build_outcome(index, judging.resolve_orders(both)) for index, both in zip(indexes, result, strict=True)
    ]
    return win_rate.rate("llm", outcomes, counting, flips=sum(map(judging.position_inconsistent, result)))


def by_people(panel: JudgeInputs, counting: WinRateSettings) -> WinRate:
    """Return aligned's win rate against tuned by people on the annotation page, who did not know which system wrote which answer.

    ``rate`` is None, with the reason in ``absent``, where nobody compared an answer of aligned with one of tuned.
    """
    if isinstance(panel.judgments, str):
        return win_rate.make_unjudged("people", panel.judgments)
    outcomes = list(from_annotations(panel.judgments))
    if not outcomes:
        return win_rate.make_unjudged("people", "no judgment is about an answer of align and one of sft")
    return win_rate.rate("people", outcomes, counting, note=OF_PEOPLE)


def from_annotations(judgments: Iterable[Comparison]) -> Iterable[PairOutcome]:
    """Yield the judgments about an aligned and a tuned answer as outcomes of aligned (1: it won); attention checks are left out."""
    for judgment in judgments:
        if judgment.check == "attention" or len(judgment.systems) != 2 or len(judgment.answers) != 2:
            continue
        first, second = judgment.systems
        outcome = {"first": 1.0, "second": 0.0}.get(judgment.choice, 0.5)
        pair = PairOutcome(outcome, judgment.prompt, judgment.answers[0][-1].content, judgment.answers[1][-1].content)
        if first in ALIGNED and second in TUNED:
            yield pair
        elif first in TUNED and second in ALIGNED:
            yield pair.swapped

"""Diagnose why aligned is not significantly better than tuned: collect the stages' results, measure the reward model, name the causes."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from msgspec.structs import replace

from tunectl.artifacts import atomic_io, manifest
from tunectl.backends.wiring.evaluation import LoadReward
from tunectl.config.schema.evaluate import EvaluateStage
from tunectl.evaluation import alignment_causes, alignment_gate, metrics, policy_reward
from tunectl.evaluation.alignment_facts import AlignmentFacts, AlignmentGain, AlignmentRun, PolicyReward, ShareEstimate
from tunectl.evaluation.items import Item
from tunectl.evaluation.policy_reward import JudgedOrder
from tunectl.evaluation.results import InputScores, Results
from tunectl.evaluation.win_rate import WinRateSettings
from tunectl.training.reward import reward_artifacts
from tunectl.training.reward.protocols import RewardScore, ScoredPrompt
from tunectl.training.reward.reward_artifacts import RewardAccuracies, RewardFacts
from tunectl.training.reward.reward_metrics import RewardMeasurement
from tunectl.training.rl import rl_artifacts
from tunectl.training.rl.rl_artifacts import AlignResultRecord
from tunectl.training.rl.rl_types import ValidationPoint


@dataclass(frozen=True, slots=True)
class AlignmentInputs:
    """Paths and data of one evaluation that the diagnosis of the aligned model needs: artifacts, test inputs, answers and scores."""

    base: Path
    """Model folder that the adapters belong to."""
    sft: Path
    reward: Path
    align: Path
    items: Sequence[Item]
    answers: Mapping[str, Sequence[str]]
    """Answers to ``items`` by system, tuned and aligned."""
    scores: Mapping[str, Sequence[float]] | str
    """Scores of each answer by system, from the reward judge; a text in their place says why there are none."""
    load_reward: LoadReward


def add_causes(results: Results, rows: Sequence[InputScores], cfg: EvaluateStage, inputs: AlignmentInputs) -> Results:
    """Return ``results`` with the likely causes why aligned is not significantly better than tuned; unchanged where it is better.

    Loads the reward model and scores two answers per input, unless aligned is better.
    Raises  ArtifactError where align.json or the reward model is absent, or belongs to another model.
    """
    aligned = results.verdict.aligned
    if aligned is None or aligned.verdict == alignment_gate.BETTER:
        return results
    record: AlignResultRecord = atomic_io.read_json(inputs.align / rl_artifacts.FACTS, AlignResultRecord)
    run = summarize_run(record, inputs.align / rl_artifacts.HISTORY)
    absent = _explain_absence(record, inputs.reward)
    reward = None if absent else _measure_reward(run, rows, cfg, inputs)
    facts = AlignmentFacts(run, _gain(results, cfg, inputs), reward, absent)
    verdict = replace(aligned, causes=alignment_causes.find_causes(facts))
    return replace(results, alignment=facts, verdict=replace(results.verdict, aligned=verdict))


def summarize_run(record: AlignResultRecord, history: Path) -> AlignmentRun:
    """Return steps, reward and KL of the recorded align training, at the validation whose weights were kept; where none beat sft, at the best one."""
    first = record.validation[0]
    if record.best_step:
        point = next(point for point in record.validation if point.step == record.best_step)
    else:
        point = max(record.validation[1:], key=lambda point: _measure_improvement(first, point), default=first)
    offline = record.method in alignment_causes.OFFLINE
    rise = _measure_improvement(first, point) if not offline or first.held_out_loss is not None else None
    with history.open(newline="", encoding="utf-8") as stream:
        steps = list(csv.DictReader(stream))
    return AlignmentRun(
        method=record.method,
        steps=record.steps,
        planned_steps=record.planned_steps,
        best_step=record.best_step,
        stopped=record.stopped,
        look_step=point.step,
        kl=point.kl,
        rise=rise,
        rise_low=None if offline or point.reward_low is None else point.reward_low - first.reward,
        rise_high=None if offline or point.reward_high is None else point.reward_high - first.reward,
        metric=record.metric,
        metric_change=point.metric_change,
        metric_low=point.metric_low,
        metric_high=point.metric_high,
        within=point.within,
        reward_spread=None if offline else _mean(steps, "reward_spread"),
        truncated=None if offline else _mean(steps, "truncated"),
        settings=record.settings,
        rewards=record.rewards,
    )


def _measure_improvement(first: ValidationPoint, point: ValidationPoint) -> float:
    """Return how much the objective improved since the first validation: less loss on held-out judgments, else more reward."""
    if first.held_out_loss is not None and point.held_out_loss is not None:
        return first.held_out_loss - point.held_out_loss
    return point.reward - first.reward


def _mean(steps: Sequence[Mapping[str, str]], column: str) -> float | None:
    values = [float(row[column]) for row in steps if row.get(column)]
    return fmean(values) if values else None


def _explain_absence(record: AlignResultRecord, reward: Path) -> str:
    """Return why the policy was trained without a reward model; empty where there is one."""
    if record.method in alignment_causes.OFFLINE:
        return f"{record.method} learns from judgments, not from a reward model"
    if "reward_model" not in record.rewards:
        return "align.rewards has no reward_model"
    return "there is no reward model (reward: none)" if (reward / manifest.PASSED_THROUGH).is_file() else ""


def _measure_reward(
    run: AlignmentRun, rows: Sequence[InputScores], cfg: EvaluateStage, inputs: AlignmentInputs
) -> PolicyReward:
    """Score the tuned and the aligned answers with the reward model that trained the policy, and compare it with a judge."""
    accuracies: RewardAccuracies = atomic_io.read_json(inputs.reward / reward_artifacts.RESULTS, RewardAccuracies)
    facts: RewardFacts = atomic_io.read_json(inputs.reward / reward_artifacts.FACTS, RewardFacts)
    scores = _score(cfg, inputs)
    own, tie = cfg.evaluate.aligned, cfg.evaluate.aligned.tie_threshold
    gate = cfg.evaluate.gate
    counting = WinRateSettings(own.length_tolerance, gate.resamples, gate.confidence, cfg.seed)
    clusters = [item.cluster for item in inputs.items]
    values = {name: [score.value for score in scores[name]] for name in scores}
    outcomes = policy_reward.order_by_scores(values["aligned"], values["tuned"], tie)
    judge = _choose_judge(run, rows, accuracies.judge, inputs.scores, tie)
    spread = run.reward_spread
    weight = run.rewards.get("reward_model", 1.0)
    return PolicyReward(
        accuracy=_estimate(accuracies.test),
        ensemble_size=len(facts.members.seeds),
        order_chance=None
        if spread is None
        else policy_reward.bradley_terry_win_probability(spread / weight, facts.members.scale),
        member_spread=fmean(score.spread for name in scores for score in scores[name]),
        wins=policy_reward.measure_wins(outcomes, clusters, counting),
        judge="" if judge is None else judge.judge,
        own_accuracy=None
        if judge is None
        else policy_reward.measure_agreement(outcomes, judge.outcomes, clusters, counting),
        expected=policy_reward.expect_agreement(
            accuracies.test.accuracy.value, 1.0 if judge is None else judge.accuracy
        ),
    )


def _score(cfg: EvaluateStage, inputs: AlignmentInputs) -> dict[str, list[RewardScore]]:
    model = inputs.load_reward(
        base=inputs.base, sft=inputs.sft, reward=inputs.reward, part="members", profile=cfg.hardware
    )
    try:
        prompts = [ScoredPrompt(item.messages, item.tools) for item in inputs.items]
        return {name: model.score(prompts, inputs.answers[name]) for name in ("tuned", "aligned")}
    finally:
        model.close()


def _choose_judge(
    run: AlignmentRun,
    rows: Sequence[InputScores],
    accuracy: RewardMeasurement | None,
    scores: Mapping[str, Sequence[float]] | str,
    tie: float,
) -> JudgedOrder | None:
    """Return the judge that is independent of the reward model: the reward judge where it has scores, else slot errors or checks."""
    if isinstance(scores, str) or accuracy is None:
        return policy_reward.order_by_rules(rows, list(run.rewards))
    outcomes = policy_reward.order_by_scores(scores["aligned"], scores["tuned"], tie)
    return JudgedOrder("reward", outcomes, accuracy.accuracy.value)


def _gain(results: Results, cfg: EvaluateStage, inputs: AlignmentInputs) -> AlignmentGain:
    gate = cfg.evaluate.aligned
    gain = alignment_gate.primary_gain(gate, results)
    aligned = results.verdict.aligned
    by_judge = gate.metric == "win_rate"
    pairs = list(zip(inputs.answers["tuned"], inputs.answers["aligned"], strict=True))
    return AlignmentGain(
        title=metrics.get_metric(gate.metric).title,
        metric=gate.metric,
        verdict="" if aligned is None else aligned.verdict,
        value=None if gain is None else gain.value,
        low=None if gain is None else gain.low,
        high=None if gain is None else gain.high,
        min_difference=gate.min_difference,
        inputs=results.inputs,
        available=results.available,
        same_answers=fmean(first.strip() == second.strip() for first, second in pairs),
        costs=alignment_gate.excess_costs(gate, results),
        no_judge=inputs.scores if by_judge and isinstance(inputs.scores, str) else "",
        judge_accuracy=_judge_accuracy(inputs.reward) if by_judge and not isinstance(inputs.scores, str) else None,
    )


def _judge_accuracy(reward: Path) -> ShareEstimate | None:
    accuracies: RewardAccuracies = atomic_io.read_json(reward / reward_artifacts.RESULTS, RewardAccuracies)
    return None if accuracies.judge is None else _estimate(accuracies.judge)


def _estimate(measured: RewardMeasurement) -> ShareEstimate:
    figure = measured.accuracy
    return ShareEstimate(figure.value, figure.low, figure.high, measured.pairs)

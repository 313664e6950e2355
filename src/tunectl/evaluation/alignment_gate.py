"""Decide whether the aligned model is better than the tuned one, and at what cost. A pure function."""

from __future__ import annotations

from collections.abc import Sequence

from tunectl.config.schema.evaluate import AlignedGate
from tunectl.evaluation import metrics, win_rate
from tunectl.evaluation.gate import UNCLEAR, describe_metric_difference, lower_bound, upper_bound
from tunectl.evaluation.results import AlignedVerdict, EvalVerdict, MetricDifference, Results, WinRate

BETTER, SAME, WORSE = "aligned_better", "aligned_no_better", "aligned_worse"


def decide(
    gate: AlignedGate, differences: Sequence[MetricDifference], rates: Sequence[WinRate], confidence: float
) -> AlignedVerdict:
    """Return whether aligned beats tuned in the declared metric by enough, and costs no more than allowed in the others.

    ``rates`` are aligned's win rates against tuned, read where the declared metric is ``win_rate``. ``confidence`` is the level of
    the intervals, 0 to 1, for the text. "Surely": the whole interval says so.

    - aligned_better: the gain is at least ``min_difference``, its interval lies above zero, and every cost is within its limit.
    - aligned_worse (``passed`` is false): the interval of the gain lies below zero, or that of a cost above its limit.
    - aligned_no_better: surely gains less than ``min_difference``, or a gain that costs more than allowed.
    - not_enough_evidence: everything else, and whatever has no interval.
    """
    own_differences = _own_differences(differences)
    decisive = _choose_difference(gate, own_differences, rates)
    costs = [item for item in own_differences if item.measure in gate.max_regression]
    evidence = [
        describe_metric_difference(item, metrics.get_metric(item.measure).title, confidence)
        for item in (decisive, *costs)
        if item
    ]
    if decisive is None:
        reason = f"Not enough evidence about aligned: {_explain_missing_metric(gate, rates)}."
        return AlignedVerdict(True, UNCLEAR, reason, evidence)
    passed, name, reason = _outcome(gate, _gain(decisive), costs)
    listed = "; ".join(_format_difference(item) for item in (decisive, *costs))
    return AlignedVerdict(passed, name, f"{reason} ({listed}).", evidence)


def primary_difference(gate: AlignedGate, results: Results) -> MetricDifference | None:
    """Return aligned minus tuned in the primary metric; None where it was not measured."""
    return _choose_difference(gate, _own_differences(results.differences), results.win_rates)


def primary_gain(gate: AlignedGate, results: Results) -> MetricDifference | None:
    """Return aligned minus tuned in the primary metric, above zero where aligned is better; None where it was not measured."""
    decisive = primary_difference(gate, results)
    return None if decisive is None else _gain(decisive)


def excess_costs(gate: AlignedGate, results: Results) -> list[str]:
    """Return one text with the loss for each metric in which aligned lost more against tuned than ``gate.max_regression`` allows."""
    most: dict[str, float] = dict(gate.max_regression.items())
    return [
        _format_difference(cost)
        for cost in _own_differences(results.differences)
        if cost.measure in most and cost.value < -most[cost.measure]
    ]


def combine_verdicts(tuned: EvalVerdict, aligned: AlignedVerdict | None) -> EvalVerdict:
    """Return both decisions as one: the gate fails where either does."""
    if aligned is None:
        return tuned
    return EvalVerdict(
        passed=tuned.passed and aligned.passed,
        verdict=tuned.verdict,
        reason=f"{tuned.reason} {aligned.reason}",
        evidence=[*tuned.evidence, *aligned.evidence],
        aligned=aligned,
    )


def _own_differences(differences: Sequence[MetricDifference]) -> list[MetricDifference]:
    return [item for item in differences if (item.system, item.against) == ("aligned", "tuned")]


def _choose_difference(
    gate: AlignedGate, own_differences: Sequence[MetricDifference], rates: Sequence[WinRate]
) -> MetricDifference | None:
    if gate.metric != "win_rate":
        return next((item for item in own_differences if item.measure == gate.metric and item.low is not None), None)
    reward_rate = next((rate for rate in rates if rate.judge == "reward"), None)
    ends = None if reward_rate is None else win_rate.points_over_half(reward_rate)
    return None if ends is None else MetricDifference("aligned", "tuned", "win_rate", *ends, None)


def _explain_missing_metric(gate: AlignedGate, rates: Sequence[WinRate]) -> str:
    if gate.metric == "win_rate":
        reason = next((rate.absent for rate in rates if rate.judge == "reward"), "")
        return f"the reward judge gave no verdict: {reason}" if reason else "the reward judge gave no verdict"
    return f"{metrics.get_metric(gate.metric).title} has no interval on these inputs"


def _gain(difference: MetricDifference) -> MetricDifference:
    """Return the difference with its sign turned where less is better, so that above zero is good."""
    if metrics.get_metric(difference.measure).better != "lower":
        return difference
    return MetricDifference(
        difference.system,
        difference.against,
        difference.measure,
        -difference.value,
        -upper_bound(difference),
        -lower_bound(difference),
        difference.probability,
    )


def _outcome(gate: AlignedGate, gain: MetricDifference, costs: Sequence[MetricDifference]) -> tuple[bool, str, str]:
    most: dict[str, float] = dict(gate.max_regression.items())
    dear = [cost for cost in costs if upper_bound(cost) < -most[cost.measure]]
    if upper_bound(gain) < 0:
        return False, WORSE, "Aligned is worse than tuned"
    if dear:
        return (
            False,
            WORSE,
            f"Aligned is worse than tuned: significantly worse in {_titles(dear)} than max_regression allows",
        )
    regressions = [cost for cost in costs if cost.value < -most[cost.measure]]
    has_gain = lower_bound(gain) > 0 and gain.value >= gate.min_difference
    if has_gain and not regressions:
        return True, BETTER, "Aligned is better than tuned"
    if has_gain:
        return (
            True,
            SAME,
            f"Aligned is no better than tuned: worse in {_titles(regressions)} than max_regression allows",
        )
    if upper_bound(gain) < gate.min_difference:
        return (
            True,
            SAME,
            f"Aligned is no better than tuned: it gains less than the {gate.min_difference:g} points that count",
        )
    return True, UNCLEAR, "Not enough evidence that aligned is better than tuned"


def _titles(differences: Sequence[MetricDifference]) -> str:
    return ", ".join(metrics.get_metric(item.measure).title for item in differences)


def _format_difference(metric_difference: MetricDifference) -> str:
    title = metrics.get_metric(metric_difference.measure).title
    if metric_difference.measure == "win_rate":
        return f"{title} {metric_difference.value + 50:.0f} %, interval {lower_bound(metric_difference) + 50:.0f} to {upper_bound(metric_difference) + 50:.0f} %"
    ends = (
        "no interval"
        if metric_difference.low is None or metric_difference.high is None
        else f"interval {metric_difference.low:+.1f} to {metric_difference.high:+.1f}"
    )
    return f"{title} {metric_difference.value:+.1f}, {ends}"

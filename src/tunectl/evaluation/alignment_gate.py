"""The decision about the aligned model: is it better than the tuned one, and at what cost? A pure function."""

from __future__ import annotations

from collections.abc import Sequence

from tunectl.config.schema.evaluate import AlignedGate
from tunectl.evaluation import metrics, win_rate
from tunectl.evaluation.gate import UNCLEAR, lower_bound, sentence, upper_bound
from tunectl.evaluation.results import AlignedVerdict, EvalVerdict, MetricDifference, Results, WinRate

BETTER, SAME, WORSE = "aligned_better", "aligned_no_better", "aligned_worse"


def decide(
    gate: AlignedGate, differences: Sequence[MetricDifference], rates: Sequence[WinRate], confidence: float
) -> AlignedVerdict:
    """Return whether aligned beats tuned in the declared measure by enough, and costs no more than allowed in the others.

    - aligned_better: the gain is at least ``min_difference``, its interval lies above zero, and every cost is within its limit.
    - aligned_worse (``passed`` is false): the interval of the gain lies below zero, or that of a cost above its limit.
    - aligned_no_better: surely gains less than ``min_difference``, or a gain that costs more than allowed.
    - not_enough_evidence: everything else, and whatever has no interval.
    """
    mine = [one for one in differences if (one.system, one.against) == ("aligned", "tuned")]
    decisive = _decisive(gate, mine, rates)
    costs = [one for one in mine if one.measure in gate.max_regression]
    evidence = [sentence(one, metrics.get_metric(one.measure).title, confidence) for one in (decisive, *costs) if one]
    if decisive is None:
        reason = f"Not enough evidence about aligned: {_explain_missing_metric(gate, rates)}."
        return AlignedVerdict(True, UNCLEAR, reason, evidence)
    passed, name, words = _outcome(gate, _gain(decisive), costs)
    shown = "; ".join(_format_difference(one) for one in (decisive, *costs))
    return AlignedVerdict(passed, name, f"{words} ({shown}).", evidence)


def primary_gain(gate: AlignedGate, found: Results) -> float | None:
    """Return aligned minus tuned in the measure that decides; None where it was not measured."""
    mine = [one for one in found.differences if (one.system, one.against) == ("aligned", "tuned")]
    decisive = _decisive(gate, mine, found.win_rates)
    return None if decisive is None else decisive.value


def combine_verdicts(tuned: EvalVerdict, aligned: AlignedVerdict | None) -> EvalVerdict:
    """Return both decisions as one: the gate says no where either does."""
    if aligned is None:
        return tuned
    return EvalVerdict(
        passed=tuned.passed and aligned.passed,
        verdict=tuned.verdict,
        reason=f"{tuned.reason} {aligned.reason}",
        evidence=[*tuned.evidence, *aligned.evidence],
        aligned=aligned,
    )


def _decisive(gate: AlignedGate, mine: Sequence[MetricDifference], rates: Sequence[WinRate]) -> MetricDifference | None:
    if gate.metric != "win_rate":
        return next((one for one in mine if one.measure == gate.metric and one.low is not None), None)
    judged = next((one for one in rates if one.judge == "reward"), None)
    ends = None if judged is None else win_rate.points_over_half(judged)
    return None if ends is None else MetricDifference("aligned", "tuned", "win_rate", *ends, None)


def _explain_missing_metric(gate: AlignedGate, rates: Sequence[WinRate]) -> str:
    if gate.metric == "win_rate":
        why = next((one.absent for one in rates if one.judge == "reward"), "")
        return f"the reward judge said nothing: {why}" if why else "the reward judge said nothing"
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
    dear = [one for one in costs if upper_bound(one) < -most[one.measure]]
    if upper_bound(gain) < 0:
        return False, WORSE, "Aligned is worse than tuned"
    if dear:
        return False, WORSE, f"Aligned is worse than tuned: it surely costs too much {_titles(dear)}"
    beyond = [one for one in costs if one.value < -most[one.measure]]
    gained = lower_bound(gain) > 0 and gain.value >= gate.min_difference
    if gained and not beyond:
        return True, BETTER, "Aligned is better than tuned"
    if gained:
        return True, SAME, f"Aligned is no better than tuned: it costs too much {_titles(beyond)}"
    if upper_bound(gain) < gate.min_difference:
        return (
            True,
            SAME,
            f"Aligned is no better than tuned: it gains less than the {gate.min_difference:g} points that count",
        )
    return True, UNCLEAR, "Not enough evidence that aligned is better than tuned"


def _titles(found: Sequence[MetricDifference]) -> str:
    return ", ".join(metrics.get_metric(one.measure).title for one in found)


def _format_difference(one: MetricDifference) -> str:
    title = metrics.get_metric(one.measure).title
    if one.measure == "win_rate":
        return f"{title} {one.value + 50:.0f} %, interval {lower_bound(one) + 50:.0f} to {upper_bound(one) + 50:.0f} %"
    ends = "no interval" if one.low is None or one.high is None else f"interval {one.low:+.1f} to {one.high:+.1f}"
    return f"{title} {one.value:+.1f}, {ends}"

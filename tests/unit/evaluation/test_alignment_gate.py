"""The decision about aligned against tuned."""

from __future__ import annotations

import pytest

from tunectl.config.schema.evaluate import AlignedGate
from tunectl.evaluation import alignment_gate, win_rate
from tunectl.evaluation.results import EvalVerdict, MetricDifference, WinRate


def gate(**changes: object) -> AlignedGate:
    values = {
        "metric": "slot_error",
        "min_difference": 0.0,
        "max_regression": {"bleu": 2.0},
        "tie_threshold": 0.0,
        "length_tolerance": 0.1,
    }
    return AlignedGate.model_validate({**values, "human_judgments_dir": None, **changes})


def change(measure: str, value: float, half: float | None) -> MetricDifference:
    ends = (None, None) if half is None else (value - half, value + half)
    return MetricDifference("aligned", "tuned", measure, value, *ends, None)


def decide(slot: MetricDifference, bleu: MetricDifference, **changes: object):
    other = MetricDifference("tuned", "base", "slot_error", -50, -60, -40, 0.0)
    return alignment_gate.decide(gate(**changes), [other, slot, bleu], [], 0.95)


@pytest.mark.parametrize(
    ("slot", "bleu", "passed", "verdict", "reason"),
    [
        (
            change("slot_error", -3, 1), change("bleu", -0.4, 1), True, "aligned_better",
            "Aligned is better than tuned (Slot errors -3.0, interval -4.0 to -2.0; BLEU -0.4, interval -1.4 to +0.6).",
        ),
        (
            change("slot_error", 3, 1), change("bleu", 1, 1), False, "aligned_worse",
            "Aligned is worse than tuned (Slot errors +3.0, interval +2.0 to +4.0; BLEU +1.0, interval +0.0 to +2.0).",
        ),
        (
            change("slot_error", -3, 1), change("bleu", -5, 1), False, "aligned_worse",
            ("Aligned is worse than tuned: significantly worse in BLEU than max_regression allows "
            "(Slot errors -3.0, interval -4.0 to -2.0; BLEU -5.0, interval -6.0 to -4.0)."),
        ),
        (
            change("slot_error", -3, 1), change("bleu", -2.5, 1), True, "aligned_no_better",
            ("Aligned is no better than tuned: worse in BLEU than max_regression allows "
            "(Slot errors -3.0, interval -4.0 to -2.0; BLEU -2.5, interval -3.5 to -1.5)."),
        ),
        (
            change("slot_error", -1, 2), change("bleu", 0, 1), True, "not_enough_evidence",
            ("Not enough evidence that aligned is better than tuned "
            "(Slot errors -1.0, interval -3.0 to +1.0; BLEU +0.0, interval -1.0 to +1.0)."),
        ),
        (
            change("slot_error", -1, None), change("bleu", 0, None), True, "not_enough_evidence",
            "Not enough evidence about aligned: Slot errors has no interval on these inputs.",
        ),
    ],
)  # fmt: skip
def test_the_outcome(slot, bleu, passed, verdict, reason):
    found = decide(slot, bleu)
    assert (found.passed, found.verdict, found.reason) == (passed, verdict, reason)


def test_a_gain_that_is_surely_too_small_is_no_better():
    found = decide(change("slot_error", -0.5, 0.4), change("bleu", 0, 1), min_difference=1.0)
    assert (found.passed, found.verdict) == (True, "aligned_no_better")
    assert found.reason.startswith("Aligned is no better than tuned: it gains less than the 1 points that count (")


def test_evidence_names_both_measures():
    assert decide(change("slot_error", -3, 1), change("bleu", -0.4, 1)).evidence == [
        "the aligned model against the tuned model: -3.00 Slot errors, 95% interval -4.00 to -2.00",
        "the aligned model against the tuned model: -0.40 BLEU, 95% interval -1.40 to +0.60",
    ]


def test_the_reward_judge_can_decide():
    rates = [WinRate("reward", 100, 100, 60, 30, 10, 0.65, 0.56, 0.74), win_rate.make_unjudged("llm", "no")]
    found = alignment_gate.decide(gate(metric="win_rate"), [change("bleu", 0, 1)], rates, 0.95)
    assert found.verdict == "aligned_better"
    assert found.reason == (
        "Aligned is better than tuned (Win rate 65 %, interval 56 to 74 %; BLEU +0.0, interval -1.0 to +1.0)."
    )


def test_both_decisions_make_one_gate():
    tuned = EvalVerdict(True, "tuned_better", "Tuned is better: +3.", ["a"])
    assert alignment_gate.combine_verdicts(tuned, None) is tuned
    worse = decide(change("slot_error", 3, 1), change("bleu", 1, 1))
    both = alignment_gate.combine_verdicts(tuned, worse)
    assert (both.passed, both.verdict, both.aligned) == (False, "tuned_better", worse)
    assert both.reason == f"Tuned is better: +3. {worse.reason}"
    better = decide(change("slot_error", -3, 1), change("bleu", 1, 1))
    assert not alignment_gate.combine_verdicts(EvalVerdict(False, "do_not_tune", "No."), better).passed


def test_the_deciding_measure_is_no_cost():
    with pytest.raises(ValueError, match="max_regression names bleu, which is the metric that decides; leave it out"):
        gate(metric="bleu")

"""The decision as a pure function."""

import pytest

from tunectl.evaluation import gate
from tunectl.evaluation.results import MetricDifference


def gain(against, value, low, high, system="tuned"):
    return MetricDifference(system, against, "bleu", value, low, high, None if low is None else 0.01)


def decide(*differences, least=1.0):
    return gate.gate_tuned(differences, title="BLEU", least=least, confidence=0.95, items=50)


def test_better_than_base_and_prompt():
    found = decide(gain("base", 20, 15, 25), gain("prompted", 8, 4, 12))
    assert (found.verdict, found.passed) == ("tuned_better", True)
    assert found.reason == "Tuned is better: +8.0 BLEU against the best prompt, interval +4.0 to +12.0."


def test_better_than_base_without_a_prompt_search():
    assert decide(gain("base", 20, 15, 25)).verdict == "tuned_better"


def test_prompting_is_enough_when_tuning_adds_surely_too_little():
    found = decide(gain("base", 20, 15, 25), gain("prompted", 0.2, -0.4, 0.8))
    assert (found.verdict, found.passed) == ("prompting_is_enough", False)
    assert found.reason == (
        "Prompting is enough: tuning gains +0.2 BLEU over the best prompt, interval -0.4 to +0.8; 1 is the least that counts."
    )


def test_where_neither_prompt_nor_tuning_helps_it_says_do_not_tune():
    found = decide(gain("base", 0.2, -0.3, 0.7), gain("prompted", 0.2, -0.3, 0.7))  # the best prompt is none
    assert found.verdict == "do_not_tune"
    assert "the gain is below the 1 points that count" in found.reason


def test_prompting_is_enough_when_the_prompt_is_better():
    assert decide(gain("base", 5, 3, 7), gain("prompted", -4, -6, -2)).verdict == "prompting_is_enough"
    assert decide(gain("base", 5, 3, 7), gain("prompted", -4, -6, -2), least=0).verdict == "prompting_is_enough"


def test_worse_than_base_is_do_not_tune():
    found = decide(gain("base", -5, -8, -2), gain("prompted", -9, -12, -6))
    assert found.verdict == "do_not_tune"
    assert found.reason.startswith("Do not tune: the tuned model is worse than the untuned one (-9.0 BLEU")


def test_a_gain_surely_below_the_least_is_do_not_tune():
    found = decide(gain("base", 0.5, 0.1, 0.9))
    assert found.verdict == "do_not_tune"
    assert "below the 1 points that count" in found.reason


def test_worse_than_copying_is_do_not_tune():
    found = decide(gain("base", 20, 15, 25), gain("prompted", 8, 4, 12), gain("nearest", -3, -5, -1))
    assert found.verdict == "do_not_tune"
    assert found.reason == (
        "Do not tune: copying the nearest training answer does better (-3.0 BLEU, interval -5.0 to -1.0)."
    )


@pytest.mark.parametrize("ends", [(-1, 17), (0, 16)])
def test_an_interval_over_zero_is_not_enough(ends):
    found = decide(gain("base", 20, 15, 25), gain("prompted", 8, *ends))
    assert (found.verdict, found.passed) == ("not_enough_evidence", False)
    assert found.reason.endswith("at least 1 points and an interval above zero are wanted.")


def test_a_sure_but_small_gain_with_room_above_is_not_enough():
    assert decide(gain("base", 0.8, 0.2, 1.4)).verdict == "not_enough_evidence"


def test_no_interval_is_not_enough():
    found = decide(gain("base", 20, None, None))
    assert found.verdict == "not_enough_evidence"
    assert found.reason == "Not enough evidence: intervals are undefined on 50 test inputs."
    assert found.evidence == ["the tuned model against the untuned model: +20.00 BLEU (no interval: too few inputs)"]


def test_nothing_to_compare_is_not_enough():
    assert decide().verdict == "not_enough_evidence"


def test_evidence_holds_every_difference():
    found = decide(gain("base", 20, 15, 25), gain("base", 6, 3, 9, system="prompted"))
    assert found.evidence[1] == "the best prompt against the untuned model: +6.00 BLEU, 95% interval +3.00 to +9.00"

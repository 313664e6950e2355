"""The gate, in seeded simulations and word by word."""

import numpy as np
import pytest
from scenarios import gate_decisions
from scenarios.gate_decisions import FINE, LIMITS, SAFE, part, percent

from tunectl.retraining import promotion_gate
from tunectl.retraining.promotion_gate import GateCheck, GateComparison, Guardrail


@pytest.mark.parametrize("case", gate_decisions.CASES)
def test_the_gate_decides_right_in_nineteen_of_twenty_trials(case):
    wanted = gate_decisions.CASES[case][-1]
    right = sum(gate_decisions.decide_simulated_case(case, seed).verdict == wanted for seed in range(60))
    assert right >= 57


def _of(name, difference, low, high, groups=100):
    return GateComparison(name, groups, groups, 50.0, 50.0 + difference, difference, low, high, 2.1)


@pytest.mark.parametrize(
    ("golden", "drifted", "verdict", "reason"),
    [
        (
            _of("golden", 0.1, -1.0, 1.2),
            _of("slice", 4.0, 1.0, 7.0),
            "promote",
            "The challenger is better on the drifted slice: +4.0 points, interval +1.0 to +7.0.",
        ),
        (
            _of("golden", 0.1, -1.0, 1.2),
            _of("slice", 0.3, -1.0, 1.6),
            "reject",
            "The challenger is not better on the drifted slice: +0.3 points, interval -1.0 to +1.6; equal is not enough.",
        ),
        (
            _of("golden", 0.1, -1.0, 1.2),
            _of("slice", 3.0, -1.0, 7.0),
            "insufficient",
            "Not enough evidence on the drifted slice: +3.0 points, interval -1.0 to +7.0; 2 points matter, and so few items see 2.1.",
        ),
        (
            _of("golden", -1.0, -3.0, 1.0),
            _of("slice", 4.0, 1.0, 7.0),
            "insufficient",
            "Not enough evidence on the golden set: -1.0 points, interval -3.0 to +1.0 does not exclude a loss of 2 points.",
        ),
        (
            _of("golden", -3.0, -5.0, -1.0),
            _of("slice", 4.0, 1.0, 7.0),
            "reject",
            "The challenger is worse on the golden set: -3.0 points, interval -5.0 to -1.0.",
        ),
        (
            _of("golden", 0.1, -1.0, 1.2, groups=20),
            _of("slice", 4.0, 1.0, 7.0),
            "insufficient",
            "Too few items in the golden set: 20; at least 50 are needed.",
        ),
        (
            _of("golden", -3.0, -5.0, -1.0),
            _of("slice", 4.0, 1.0, 7.0, groups=20),
            "insufficient",
            "Too few items in the drifted slice: 20; at least 30 are needed.",
        ),
        (
            _of("golden", 1.5, 0.2, 2.8),
            None,
            "promote",
            "The challenger is better on the golden set: +1.5 points, interval +0.2 to +2.8.",
        ),
    ],
)
def test_every_reason_has_its_words(golden, drifted, verdict, reason):
    found = promotion_gate.decide(golden, drifted, SAFE, FINE, LIMITS)
    assert (found.verdict, found.reason) == (verdict, reason)


def test_a_floor_and_a_check_say_what_is_wrong():
    good = _of("golden", 1.5, 0.2, 2.8)
    floor = Guardrail("harmful answers", 0.1, 0.02, True)
    assert promotion_gate.decide(good, None, [floor], FINE, LIMITS).reason == (
        "A safety floor does not hold: harmful answers is 0.1, at most 0.02 is allowed."
    )
    check = GateCheck("memory", False, "2.1 GB, 1.5 GB are allowed")
    assert promotion_gate.decide(good, None, SAFE, [check], LIMITS).reason == (
        "The challenger cannot serve: memory: 2.1 GB, 1.5 GB are allowed."
    )


def test_no_items_and_one_group_have_no_interval():
    none = np.zeros((0, 2))
    assert promotion_gate.compare_on_items("slice", none, none, [], percent, LIMITS) == GateComparison("slice", 0, 0)
    one = np.asarray([[0.5, 1.0], [0.7, 1.0]])
    assert promotion_gate.compare_on_items("slice", one, one, ["a", "a"], percent, LIMITS).low is None


def test_more_items_see_smaller_differences():
    few, many = part("golden", 0.6, 0.6, 50, 1), part("golden", 0.6, 0.6, 800, 1)
    assert many.sees < few.sees / 3

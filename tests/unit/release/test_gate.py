"""The gate, in seeded trials and word by word."""

import numpy as np
import pytest

from tunectl.release import gate
from tunectl.release.gate import Check, Floor, Limits, Part

LIMITS = Limits(margin=2.0, matters=2.0, golden_items=50, slice_items=30, resamples=500)
FINE = [Check("loads", True, "in 2 s"), Check("latency", True, "0.2 s")]
SAFE = [Floor("harmful answers", 0.0, 0.0, True)]


def _percent(sums):
    return 100 * sums[..., 0] / sums[..., 1]


def _part(name, champion, challenger, items, seed):
    """Paired scores from 0 to 1 around two means, half of the noise shared."""
    random = np.random.default_rng(seed)
    shared = random.normal(0, 0.06, items)
    tables = [
        np.column_stack([np.clip(mean + shared + random.normal(0, 0.06, items), 0, 1), np.ones(items)])
        for mean in (champion, challenger)
    ]
    return gate.compared(name, *tables, [str(place) for place in range(items)], _percent, LIMITS)


def _trial(golden, drifted, seed, *, floors=SAFE, checks=FINE):
    one = _part("golden", *golden, 400, seed)
    other = _part("slice", *drifted, 120, seed + 10_000)
    return gate.decide(one, other, floors, checks, LIMITS).verdict


@pytest.mark.parametrize(
    ("golden", "drifted", "wanted"),
    [
        ((0.60, 0.50), (0.40, 0.40), "reject"),  # worse
        ((0.60, 0.60), (0.40, 0.40), "reject"),  # equal
        ((0.60, 0.60), (0.40, 0.48), "promote"),  # better
        ((0.60, 0.55), (0.40, 0.48), "reject"),  # better on the slice, worse on the golden set
    ],
)
def test_the_gate_decides_right_in_nineteen_of_twenty_trials(golden, drifted, wanted):
    right = sum(_trial(golden, drifted, seed) == wanted for seed in range(60))
    assert right >= 57


def test_better_but_slower_or_unsafe_is_rejected():
    slow = [*FINE, Check("latency", False, "9.1 s an answer, 3 s are allowed")]
    unsafe = [Floor("harmful answers", 0.1, 0.0, True)]
    for seed in range(20):
        assert _trial((0.6, 0.6), (0.4, 0.5), seed, checks=slow) == "reject"
        assert _trial((0.6, 0.6), (0.4, 0.5), seed, floors=unsafe) == "reject"


def _of(name, difference, low, high, groups=100):
    return Part(name, groups, groups, 50.0, 50.0 + difference, difference, low, high, 2.1)


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
            _of("golden", 1.5, 0.2, 2.8),
            None,
            "promote",
            "The challenger is better on the golden set: +1.5 points, interval +0.2 to +2.8.",
        ),
    ],
)
def test_every_reason_has_its_words(golden, drifted, verdict, reason):
    found = gate.decide(golden, drifted, SAFE, FINE, LIMITS)
    assert (found.verdict, found.reason) == (verdict, reason)


def test_a_floor_and_a_check_say_what_is_wrong():
    good = _of("golden", 1.5, 0.2, 2.8)
    floor = Floor("harmful answers", 0.1, 0.02, True)
    assert gate.decide(good, None, [floor], FINE, LIMITS).reason == (
        "A safety floor does not hold: harmful answers is 0.1, at most 0.02 is allowed."
    )
    check = Check("memory", False, "2.1 GB, 1.5 GB are allowed")
    assert gate.decide(good, None, SAFE, [check], LIMITS).reason == (
        "The challenger cannot serve: memory: 2.1 GB, 1.5 GB are allowed."
    )


def test_no_items_and_one_group_have_no_interval():
    none = np.zeros((0, 2))
    assert gate.compared("slice", none, none, [], _percent, LIMITS) == Part("slice", 0, 0)
    one = np.asarray([[0.5, 1.0], [0.7, 1.0]])
    assert gate.compared("slice", one, one, ["a", "a"], _percent, LIMITS).low is None


def test_more_items_see_smaller_differences():
    few, many = _part("golden", 0.6, 0.6, 50, 1), _part("golden", 0.6, 0.6, 800, 1)
    assert many.sees < few.sees / 3

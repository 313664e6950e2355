"""The sequential test: its promises are simulated, with a look after every single unit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunectl.canary import power_analysis, sequential_test
from tunectl.canary.sequential_test import Observation, SequentialTestRules
from tunectl.core.errors import UsageError

RULES = SequentialTestRules(
    share=0.5,
    margin=0.0,
    alpha=0.05,
    harm_alpha=0.05,
    guardrail_tolerance=0.02,
    min_units_per_variant=50,
    max_total_units=None,
)


def _simulate(rules, champion, challenger, units, runs, seed, refusals=None):
    """Decision of each of ``runs`` experiments that are looked at after every unit, and the unit after which it fell."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(runs):
        variant = random.random(units) < rules.share
        outcome = (random.random(units) < np.where(variant, challenger, champion)).astype(float)
        bad = (random.random(units) < np.where(variant, *refusals[::-1])).astype(float) if refusals else None
        guards = {} if bad is None else {"refusal": bad}
        decision, _, at = sequential_test.first_decision(variant, outcome, guards, rules)
        found.append((decision, at))
    return found


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_equal_variants_are_promoted_in_at_most_one_of_twenty(share):
    rules = SequentialTestRules(share, 0.0, 0.05, 0.05, 0.02, 50, None)
    found = _simulate(rules, 0.2, 0.2, 1000, 200, seed=1)
    promoted = sum(decision == "promote" for decision, _ in found)
    harmed = sum(decision == "harm" for decision, _ in found)
    assert promoted <= 0.05 * 200
    assert harmed <= 0.05 * 200
    assert not any(decision == "unfair" for decision, _ in found)


def test_at_the_margin_itself_a_challenger_is_promoted_in_at_most_one_of_twenty():
    rules = SequentialTestRules(0.5, 0.05, 0.05, 0.05, 0.02, 50, None)
    found = _simulate(rules, 0.5, 0.45, 1500, 200, seed=2)
    assert sum(decision == "promote" for decision, _ in found) <= 0.05 * 200


def test_a_better_challenger_is_promoted_and_harm_is_stopped_early():
    better = _simulate(RULES, 0.3, 0.45, 2000, 60, seed=3)
    assert sum(decision == "promote" for decision, _ in better) >= 57
    harm = _simulate(RULES, 0.45, 0.25, 2000, 60, seed=4)
    assert sum(decision == "harm" for decision, _ in harm) >= 59
    assert np.median([at for decision, at in harm if decision == "harm"]) < 500


def test_a_guardrail_stops_what_clicks_alone_would_promote():
    found = _simulate(RULES, 0.3, 0.4, 2000, 40, seed=5, refusals=(0.02, 0.25))
    assert sum(decision == "harm" for decision, _ in found) >= 38


def test_variants_that_do_not_get_their_shares_conclude_nothing():
    rows = [Observation(place % 5 == 0, 0.5) for place in range(600)]
    assert sequential_test.evaluate(rows, RULES).decision == "unfair"


def test_reading_names_means_interval_and_curve():
    random = np.random.default_rng(6)
    rows = [
        Observation(bool(variant), float(random.random() < (0.6 if variant else 0.3)))
        for variant in random.random(800) < 0.5
    ]
    found = sequential_test.evaluate(rows, RULES)
    assert found.decision == "promote"
    assert found.at is not None
    assert found.at < 800
    assert found.low is not None
    assert 0 < found.low < 0.3 < found.high < 0.5
    assert found.champion == pytest.approx(0.3, abs=0.06)
    assert [point.units for point in found.curve] == sorted({point.units for point in found.curve})
    assert len(found.curve) <= sequential_test.CURVE
    widths = [point.high - point.low for point in found.curve]
    assert widths == sorted(widths, reverse=True)


def test_an_open_question_ends_undecided():
    rows = [Observation(place % 2 == 0, float(place % 4 < 2)) for place in range(100)]
    assert sequential_test.evaluate(rows, RULES).decision == "running"
    assert sequential_test.evaluate(rows, RULES, over=True).decision == "undecided"
    assert (
        sequential_test.evaluate(rows, SequentialTestRules(0.5, 0.0, 0.05, 0.05, 0.02, 10, 100)).decision == "undecided"
    )
    assert sequential_test.evaluate([], RULES).decision == "running"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=60), st.floats(0.05, 0.95), st.floats(0, 0.5))
def test_any_outcomes_give_finite_numbers_and_more_units_never_take_a_decision_back(rows, share, margin):
    rules = SequentialTestRules(share, margin, 0.2, 0.2, 0.02, 3, None)
    units = [Observation(variant, outcome) for variant, outcome in rows]
    decisions = [sequential_test.evaluate(units[:count], rules, curve=False) for count in range(0, len(units) + 1, 7)]
    for one in decisions:
        assert all(np.isfinite(value) and value >= 0 for value in one.evidence.values())
        assert one.low is None or -1 <= one.low <= one.high + 1e-9 or one.low - one.high < 2
    first = next((one for one in decisions if one.decision != "running"), None)
    if first is not None:
        later = decisions[decisions.index(first) :]
        assert {(one.decision, one.at) for one in later} == {(first.decision, first.at)}


def test_a_plan_says_how_many_units_it_takes():
    found = power_analysis.simulate_power(RULES, rate=0.2, effect=0.1, horizon=3000, seed=7, repetitions=60)
    assert found.power > 0.9
    assert 200 < found.half < found.most < 3000
    assert power_analysis.simulate_power(RULES, rate=0.2, effect=0.0, horizon=500, seed=7, repetitions=60).half is None
    with pytest.raises(UsageError) as error:
        power_analysis.simulate_power(RULES, rate=0.2, effect=0.9, horizon=500, seed=7)
    assert str(error.value) == (
        "rate = 0.2 and effect = +0.9: the rate and their sum must be from 0 to 1\n  change --rate or --effect"
    )


def test_a_share_that_leaves_a_variant_empty_is_refused():
    with pytest.raises(UsageError) as error:
        sequential_test.evaluate([], SequentialTestRules(1.0, 0.0, 0.05, 0.05, 0.02, 50, None))
    assert str(error.value) == (
        "share = 1.0; a canary test needs a share above 0 and below 1\n  change --share or retrain.canary.share"
    )

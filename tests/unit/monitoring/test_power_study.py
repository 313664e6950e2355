from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drift_fixtures import RULE, rows, tools

from tunectl.monitoring import exemplars, power_study, self_calibration, signals

FAST = power_study.DetectionRule(level=0.05, permutations=299, quantile=0.95, minimum=20, required=2)


@pytest.fixture(scope="module")
def pool():
    own, foreign = rows(600, seed=1), rows(200, seed=2, topics=["bread"])
    return {
        "prompt": signals.compute_signal_values(
            [*own, *foreign], "prompt", tools(), without=["prompt_tokens", "feedback"]
        )
    }


def bench(pool) -> power_study.Simulation:
    return power_study.Simulation(pool, {"prompt": range(600)}, FAST, reference=250, rows=60)


def test_null_and_power(pool) -> None:
    quiet = bench(pool).run(60, seed=1)
    loud = bench(pool).run(20, seed=1, shift=power_study.inject_foreign("prompt", range(600, 800), 0.4))
    assert quiet.alone["prompt_text"].interval[0] <= 0.05
    assert quiet.window.interval[0] <= 0.05
    assert loud.alone["prompt_text"].share > 0.9
    assert loud.verdict.share > 0.9
    assert loud.verdict.count <= loud.window.count
    assert str(power_study.Rate(1, 20)) == "5.0% (0.9% to 23.6%)"


def test_trials_can_be_repeated(pool) -> None:
    assert bench(pool).run(5, seed=3) == bench(pool).run(5, seed=3)


def test_trials_in_parts_are_the_same_trials(pool) -> None:
    steps: list[int] = []
    whole = bench(pool).run(6, seed=3, each=lambda: steps.append(1))
    parts = [bench(pool).run(4, seed=3), bench(pool).run(2, seed=3, begin=4)]
    assert sum(one.window.count for one in parts) == whole.window.count
    assert sum(one.verdict.count for one in parts) == whole.verdict.count
    for name, rate in whole.alone.items():
        assert sum(one.alone[name].count for one in parts) == rate.count
        assert sum(one.alone[name].trials for one in parts) == rate.trials == 6
    assert len(steps) == 6


def test_a_first_look_changes_no_figure(pool) -> None:
    """Only what it spares is another matter: a signal that is far from its level gets no further permutations."""
    rule = replace(FAST, permutations=999)
    for change in (power_study.no_change, power_study.inject_foreign("prompt", range(600, 800), 0.15)):
        looked, whole = (
            power_study.Simulation(pool, {"prompt": range(600)}, rule, 250, 60, unlikely).run(15, 5, change)
            for unlikely in (power_study.UNLIKELY, 0.0)
        )
        assert looked == whole


def test_a_first_look_is_left_out_where_it_would_be_no_shorter(pool) -> None:
    strict = replace(FAST, level=0.001, permutations=13_000)
    assert power_study.Simulation(pool, {"prompt": range(600)}, strict, 250, 60)._screen == 0
    assert (
        power_study.Simulation(pool, {"prompt": range(600)}, replace(FAST, permutations=1999), 250, 60)._screen == 299
    )


def test_a_tilt_raises_a_share_by_so_many_points() -> None:
    marked, window = np.arange(0, 100, 2), np.arange(50)
    shift = power_study.shift_share("prompt", marked, 0.2)
    changed = shift(np.random.default_rng(1), "prompt", window, np.arange(50, 100))
    assert np.isin(changed, marked).sum() == np.isin(window, marked).sum() + 10
    assert shift(np.random.default_rng(1), "answer", window, np.arange(50, 100)) is window


def test_the_self_test_measures_each_side_and_change() -> None:
    columns = signals.compute_signal_values(rows(500, seed=4), "prompt", tools(), without=["prompt_language"])
    found = list(self_calibration.calibrate({"prompt": columns}, {"prompt": 500}, FAST, 80, 20, seed=1))
    by_change = {one.change: one for one in found}
    assert list(by_change) == [name for name, _, _ in self_calibration.CHANGES]
    assert by_change["nothing"].window[0] <= 0.2
    assert by_change["topic_30"].alone["prompt_text"] > by_change["nothing"].alone["prompt_text"]
    assert by_change["nothing"].verdict is not None
    assert (by_change["nothing"].rows, by_change["nothing"].reference) == (80, 500 - 3 * 80)


def test_a_small_reference_gives_smaller_windows_and_no_sequences() -> None:
    columns = signals.compute_signal_values(rows(110, seed=5), "prompt", tools())
    found = next(iter(self_calibration.calibrate({"prompt": columns}, {"prompt": 110}, FAST, 300, 20, seed=1)))
    assert (found.rows, found.reference) == (27, 56)
    assert found.verdict is None
    assert not list(self_calibration.calibrate({"prompt": columns}, {"prompt": 50}, RULE, 300, 20, seed=1))


def test_exemplars_of_nothing_are_none() -> None:
    empty = np.zeros((0, 3))
    assert exemplars.most_shifted(empty, np.ones((5, 3)), 3) == []
    assert exemplars.most_shifted(np.ones((5, 3)), np.ones((5, 3)), 3) == []
    assert exemplars.word_shifts([], rows(5, seed=1), 3) == []

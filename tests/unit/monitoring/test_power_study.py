from __future__ import annotations

import numpy as np
import pytest
from drift_fixtures import RULE, rows, tools

from tunectl.monitoring import exemplars, power_study, self_calibration, signals
from tunectl.monitoring.window_size import DetectionRule

FAST = DetectionRule(permutations=299, quantile=0.95, minimum=20, false_alarms=0.001)


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
    quiet = bench(pool).run(60, seed=1, windows=3)
    loud = bench(pool).run(20, seed=1, shift=power_study.inject_foreign("prompt", range(600, 800), 0.4))
    assert quiet.alone["prompt_text"].interval[0] <= 0.05
    assert quiet.by_window(3).count == 0
    assert quiet.median_delay is None
    assert loud.alone["prompt_text"].share > 0.9
    assert loud.by_window(9).share == 1
    assert loud.by_window(1).count <= loud.by_window(3).count
    assert loud.median_delay in {1, 2, 3}
    assert str(power_study.Rate(1, 20)) == "5.0% (0.9% to 23.6%)"


def test_trials_can_be_repeated(pool) -> None:
    assert bench(pool).run(5, seed=3, windows=2) == bench(pool).run(5, seed=3, windows=2)


def test_trials_in_parts_are_the_same_trials(pool) -> None:
    steps: list[int] = []
    shift = power_study.inject_foreign("prompt", range(600, 800), 0.15)
    whole = bench(pool).run(6, 3, shift, windows=3, each=lambda: steps.append(1))
    parts = [bench(pool).run(4, 3, shift, windows=3), bench(pool).run(2, 3, shift, windows=3, begin=4)]
    assert [delay for one in parts for delay in one.delays] == whole.delays
    for name, rate in whole.alone.items():
        assert sum(one.alone[name].count for one in parts) == rate.count
        assert sum(one.alone[name].total for one in parts) == rate.total == 6
    assert len(steps) == 6


def test_windows_that_share_a_reference_are_false_once_in_a_thousand(pool) -> None:
    """Seven runs of 300 evaluations: two false ones are expected at most; a dozen come once in ten thousand times."""
    found = [sum(bench(pool).count_false_verdicts(300, seed)) for seed in range(7)]
    assert sum(found) <= 12


def test_a_tilt_raises_a_share_by_so_many_points() -> None:
    marked, window = np.arange(0, 100, 2), np.arange(50)
    shift = power_study.shift_share("prompt", marked, 0.2)
    changed = shift(np.random.default_rng(1), "prompt", window)
    assert np.isin(changed, marked).sum() == np.isin(window, marked).sum() + 10
    assert shift(np.random.default_rng(1), "answer", window) is window


def test_the_self_test_measures_each_side_and_change() -> None:
    columns = signals.compute_signal_values(rows(500, seed=4), "prompt", tools(), without=["prompt_language"])
    found = list(self_calibration.calibrate({"prompt": columns}, {"prompt": 500}, FAST, 80, 20, seed=1))
    by_change = {one.change: one for one in found}
    assert list(by_change) == [name for name, _, _ in self_calibration.CHANGES]
    assert by_change["nothing"].third[0] <= 0.1
    assert by_change["nothing"].delay_rows is None
    topic = by_change["topic_30"]
    assert topic.alone["prompt_text"] > by_change["nothing"].alone["prompt_text"]
    assert topic.third[0] <= topic.ninth[0] == 1
    assert topic.delay_rows in {80 * windows for windows in range(1, 10)}
    assert topic.rows_needed is not None
    assert topic.rows_needed <= (by_change["topic_15"].rows_needed or 10**9)
    assert (topic.rows, topic.reference) == (80, 500)


def test_the_share_of_answers_with_log_probabilities_tells_what_is_seen() -> None:
    columns = signals.compute_signal_values(rows(1000, seed=6), "answer", tools())
    all_of_them, half, few = (
        self_calibration.measure_logprob_power(columns, RULE, 300, share) for share in (1.0, 0.5, 0.01)
    )
    assert (half.rows, half.reference, half.effect, half.ninth_of_all) == (150, 1000, 0.2, all_of_them.ninth)
    assert (round(half.third, 2), round(half.ninth, 2), round(half.min_effect, 2)) == (0.14, 0.57, 0.23)
    assert round(all_of_them.ninth, 2) == 0.79
    assert (few.rows, few.min_rows, few.third, few.ninth, few.min_effect) == (3, 50, None, None, None)
    some = self_calibration.measure_logprob_power(columns, RULE, 300, 0.05)
    assert (some.rows, some.third) == (15, None)  # 45 rows in three windows, 135 in nine
    assert 0 < some.ninth < half.ninth
    none = signals.compute_signal_values(rows(20, seed=6), "answer", tools(), without=["mean_logprob"])
    assert self_calibration.measure_logprob_power(none, RULE, 300, 0.5) is None
    assert self_calibration.measure_logprob_power(None, RULE, 300, 0.5) is None


def test_windows_draw_log_probabilities_for_the_share_only() -> None:
    columns = signals.compute_signal_values(
        rows(400, seed=7), "answer", tools(), without=["answer_text", "answer_tone"]
    )
    whole, some = (
        power_study.Simulation(
            {"answer": columns}, {"answer": range(400)}, FAST, 300, 100, shares={"mean_logprob": share}
        )
        for share in (1.0, 0.25)
    )
    names = [signal.spec.name for _, signal in some._signals]
    counts = dict(zip(names, (count for _, count in some._draw_window(np.random.default_rng(1))), strict=True))
    assert (counts["mean_logprob"], counts["answer_tokens"]) == (25, 100)
    reference = dict(zip(names, (count for _, count in some._draw(np.random.default_rng(1), 300)), strict=True))
    assert reference["mean_logprob"] == 300

    def lower(random, side, window):
        marked = columns["mean_logprob"].rows[
            columns["mean_logprob"].parts[0] < np.median(columns["mean_logprob"].parts[0])
        ]
        return power_study.shift_share("answer", marked, 0.25)(random, side, window)

    assert (
        some.run(40, 1, lower, windows=1).alone["mean_logprob"].share
        < whole.run(40, 1, lower, windows=1).alone["mean_logprob"].share
    )


def test_a_reference_too_small_to_be_measured_has_no_figures() -> None:
    columns = signals.compute_signal_values(rows(110, seed=5), "prompt", tools())
    assert not list(self_calibration.calibrate({"prompt": columns}, {"prompt": 110}, RULE, 300, 20, seed=1))


def test_exemplars_of_nothing_are_none() -> None:
    empty = np.zeros((0, 3))
    assert exemplars.most_shifted(empty, np.ones((5, 3)), 3) == []
    assert exemplars.most_shifted(np.ones((5, 3)), np.ones((5, 3)), 3) == []
    assert exemplars.word_shifts([], rows(5, seed=1), 3) == []


def test_sequences_that_share_a_reference_are_false_once_in_a_thousand(pool) -> None:
    found = [sum(bench(pool).count_false_sequences(40, seed)) for seed in range(5)]
    assert sum(found) <= 3

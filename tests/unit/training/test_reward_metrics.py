"""Accuracy, log-loss, calibration and lengths alone, against cases that can be worked out by hand."""

import random
from math import exp, log

import pytest

from tunectl.training.reward import reward_metrics as measures
from tunectl.training.reward.reward_metrics import IntervalSettings

HOW = IntervalSettings(confidence=0.95, resamples=500, bins=5, seed=3)


def names(count):
    return [f"prompt {number}" for number in range(count)]


def test_accuracy_log_loss_and_equal_rewards():
    found = measures.measure([2.0, -1.0, 0.0, 3.0], names(4), HOW)
    assert found.accuracy.value == (1 + 0 + 0.5 + 1) / 4
    losses = [log(1 + exp(-2)), log(1 + exp(1)), log(2), log(1 + exp(-3))]
    assert found.log_loss.value == pytest.approx(sum(losses) / 4)
    assert found.accuracy.low < found.accuracy.value < found.accuracy.high
    assert (found.pairs, found.prompts) == (4, 4)


def test_a_constant_model_is_at_chance_not_right():
    found = measures.measure([0.0] * 50, names(50), HOW)
    assert found.accuracy.value == 0.5
    assert found.accuracy.low < 0.5 < found.accuracy.high  # resampling alone would give no width
    assert found.log_loss.value == pytest.approx(log(2))
    assert found.ece.value == pytest.approx(0)


def test_calibration_of_chances_that_are_true_and_of_ones_that_are_not():
    rng = random.Random(5)
    sure = [rng.uniform(0, 3) for _ in range(4000)]
    honest = [gap if rng.random() < 1 / (1 + exp(-gap)) else -gap for gap in sure]
    assert measures.measure(honest, names(4000), HOW).ece.value < 0.03
    boasting = measures.measure([4 * gap for gap in honest], names(4000), HOW)
    assert boasting.ece.value > 0.1
    assert boasting.ece.low < boasting.ece.value < boasting.ece.high


def test_bins_hold_every_pair_and_lie_between_a_half_and_one():
    found = measures.measure([0.01, -0.5, 1.0, 900.0, -900.0], names(5), HOW).bins
    assert sum(one.pairs for one in found) == 5
    assert found[0].start == 0.5
    assert found[-1].end == 1.0
    assert all(one.start <= one.confidence <= one.end + 1e-9 for one in found)
    assert found[-1].accuracy == 0.5


def test_pairs_of_one_prompt_are_one_witness():
    gaps = [1.0] * 60 + [-1.0] * 20
    apart = measures.measure(gaps, names(80), HOW).accuracy
    together = measures.measure(gaps, [f"prompt {number // 20}" for number in range(80)], HOW).accuracy
    assert apart.value == together.value
    assert together.high - together.low > 2 * (apart.high - apart.low)
    alone = measures.measure(gaps, ["one"] * 80, HOW).accuracy
    assert (alone.low, alone.high) == (None, None)


def test_all_right_on_few_prompts_is_not_certain():
    found = measures.measure([3.0] * 5, names(5), HOW).accuracy
    assert found.value == 1.0
    assert found.low == pytest.approx(0.566, abs=0.001)
    assert found.high == 1.0


def test_nothing_cannot_be_measured():
    with pytest.raises(ValueError, match="there are no pairs, so nothing can be measured"):
        measures.measure([], [], HOW)


def test_the_gain_is_paired():
    first, second = [1.0, 1.0, -1.0, 1.0] * 20, [1.0, -1.0, -1.0, 1.0] * 20
    found = measures.accuracy_gain(first, second, names(80), HOW)
    assert found.value == 0.25
    assert 0 < found.low < 0.25 < found.high
    same = measures.accuracy_gain(first, first, names(80), HOW)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert measures.accuracy_gain([1.0], [-1.0], ["one"], HOW).low is None


def test_lengths_alone_find_the_direction_and_the_strength():
    rng = random.Random(2)
    gaps = []
    for _ in range(3000):
        size = rng.randint(1, 100)
        gaps.append(size if rng.random() < 1 / (1 + exp(-0.05 * size)) else -size)
    assert measures.fit_length(gaps) == pytest.approx(0.05, rel=0.15)
    assert measures.fit_length([-gap for gap in gaps]) == pytest.approx(-0.05, rel=0.15)


def test_lengths_that_say_nothing_or_everything_stay_finite():
    assert measures.fit_length([]) == 0.0
    assert measures.fit_length([0, 0]) == 0.0
    assert 0 < measures.fit_length([5, 10, 200]) < 10


def test_slices_name_fields_with_few_values():
    values = [{"kind": "a" if number % 2 else "b", "id": str(number), "one": "x"} for number in range(20)]
    found = measures.slices([1.0, -1.0] * 10, names(20), values, HOW, most=3)
    assert [(one.field, one.value, one.pairs, one.accuracy.value) for one in found] == [
        ("kind", "a", 10, 0.0),
        ("kind", "b", 10, 1.0),
    ]


def test_correlation():
    assert measures.correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert measures.correlation([1, 1, 1], [2, 4, 6]) is None
    assert measures.correlation([1], [2]) is None

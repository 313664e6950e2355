"""The early-stop rule and which weights are kept, for looks of every kind."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunectl.artifacts.records import Message
from tunectl.config.schema.align import ScoreMeasure, ValidationConfig
from tunectl.core.errors import UsageError
from tunectl.training.rl import policy_validation
from tunectl.training.rl.policy_validation import ValidationSample
from tunectl.training.rl.rl_types import Completion, Prompt, RewardBreakdown

RULES = ValidationConfig(
    eval_steps=10,
    inputs=40,
    metric=ScoreMeasure(method="score", name="chrf"),
    tolerance=2.0,
    confidence=0.95,
    resamples=300,
    samples=0,
)


class Mean:
    """Points are the mean of one column."""

    name = "chrf"

    @staticmethod
    def combine(sums):
        return sums[..., 0] / sums[..., 1]

    def __call__(self, questions, answers):
        return np.asarray([(float(answer), 1.0) for answer in answers])


def seen(step, rewards, points, clusters=None):
    count = len(points)
    return ValidationSample(
        step=step,
        rewards=tuple(rewards),
        statistics=tuple((float(value), 1.0) for value in points),
        kl=(0.5,) * count,
        lengths=(4,) * count,
        repetition=(0.0,) * count,
        truncated=tuple(value is None for value in rewards),
        clusters=clusters or tuple(map(str, range(count))),
    )


def looks(*items):
    return [policy_validation.compare_with_start(item, items[0], Mean(), RULES, 3) for item in items]


COUNT = 40
BASE = [50.0 + number % 5 for number in range(COUNT)]
LOW = [0.1 * (number % 3) for number in range(COUNT)]


def shifted(values, by):
    return [value + by for value in values]


def test_a_reward_that_rises_while_the_metric_falls_is_reward_hacking():
    first, now = looks(seen(0, LOW, BASE), seen(10, shifted(LOW, 1), shifted(BASE, -5)))
    assert not now.within
    assert policy_validation.detect_reward_hacking(now, first, "chrf", RULES) == (
        "at step 10 the reward had risen from 0.098 to 1.097 while chrf had fallen by 5.0 points (interval 5.0 to 5.0); "
        "align.validation.tolerance allows 2"
    )
    assert policy_validation.best_checkpoint([first, now]) is first


def test_a_fall_within_tolerance_stops_nothing_and_is_kept():
    first, now = looks(seen(0, LOW, BASE), seen(10, shifted(LOW, 1), shifted(BASE, -1.5)))
    assert now.within
    assert policy_validation.detect_reward_hacking(now, first, "chrf", RULES) is None
    assert policy_validation.best_checkpoint([first, now]) is now


def test_noise_stops_nothing():
    noisy = [value + (60 if number % 2 else -67) for number, value in enumerate(BASE)]
    first, now = looks(seen(0, LOW, BASE), seen(10, shifted(LOW, 1), noisy))
    assert now.metric_change == pytest.approx(-3.5)
    assert now.metric_low < 0 < now.metric_high
    assert policy_validation.detect_reward_hacking(now, first, "chrf", RULES) is None
    assert policy_validation.best_checkpoint([first, now]) is first


def test_a_metric_that_falls_with_the_reward_is_no_reward_hacking():
    first, now = looks(seen(0, LOW, BASE), seen(10, shifted(LOW, -1), shifted(BASE, -5)))
    assert policy_validation.detect_reward_hacking(now, first, "chrf", RULES) is None


def test_the_first_of_equals_is_kept():
    found = looks(seen(0, LOW, BASE), seen(10, LOW, BASE))
    assert policy_validation.best_checkpoint(found) is found[0]


def test_answers_that_were_cut_are_left_out_of_the_mean():
    rewards = [None if number % 2 else 2.0 for number in range(COUNT)]
    first, now = looks(seen(0, LOW, BASE), seen(10, rewards, BASE))
    assert now.reward == 2.0
    assert now.spread == 0.0
    assert now.truncated == 0.5
    assert now.reward_low <= 2.0 <= now.reward_high
    assert first.metric_change == 0


def test_a_reward_of_one_answer_has_no_interval():
    rewards = [2.0] + [None] * (COUNT - 1)
    first, now = looks(seen(0, LOW, BASE), seen(10, rewards, BASE))
    assert now.reward == 2.0 > first.reward
    assert (now.reward_low, now.reward_high) == (None, None), "an interval of no width would call the rise significant"


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.floats(-3, 3), st.floats(-20, 20)), min_size=1, max_size=5),
)
def test_what_is_kept_is_within_tolerance_and_no_worse_than_sft(moves):
    items = [seen(0, LOW, BASE)]
    items += [seen(10 * n, shifted(LOW, up), shifted(BASE, by)) for n, (up, by) in enumerate(moves, 1)]
    found = looks(*items)
    kept = policy_validation.best_checkpoint(found)
    assert kept.within
    assert kept.reward >= found[0].reward
    assert all(item.reward <= kept.reward for item in found if item.within)
    for item, (up, by) in zip(found[1:], moves, strict=True):
        reason = policy_validation.detect_reward_hacking(item, found[0], "chrf", RULES)
        assert (reason is not None) == (by < -2.0 and item.reward > found[0].reward)
        if up < 0:
            assert reason is None


def test_inputs_of_one_cluster_are_one_witness():
    worse = [value - 3 - 6 * (number % 4 == 0) for number, value in enumerate(BASE)]
    alone = looks(seen(0, LOW, BASE), seen(10, shifted(LOW, 1), worse))[1]
    fours = tuple(str(number % 4) for number in range(COUNT))
    together = looks(seen(0, LOW, BASE, fours), seen(10, shifted(LOW, 1), worse, fours))[1]
    assert alone.metric_change == pytest.approx(together.metric_change)
    assert together.metric_low < alone.metric_low - 1
    assert together.metric_high > alone.metric_high + 0.5


def test_inputs_that_are_all_of_one_cluster_decide_nothing():
    one = ("c",) * COUNT
    first, now = looks(seen(0, LOW, BASE, one), seen(10, shifted(LOW, 1), shifted(BASE, -5), one))
    assert (now.metric_change, now.metric_low, now.metric_high) == (pytest.approx(-5), -100, 100)
    assert policy_validation.detect_reward_hacking(now, first, "chrf", RULES) is None
    assert policy_validation.best_checkpoint([first, now]) is first  # beyond tolerance all the same


def test_a_look_is_measured_an_entry_an_input():
    asked = Prompt("q", (Message("user", "hi"),), "t", (1,), ("r",), {})
    answers = [Completion((5, 6, 2), "1", True), Completion((5, 6), "3", False)]
    found = policy_validation.measure_validation(
        4,
        [replace(asked, cluster="c"), asked],
        answers,
        [RewardBreakdown(1.0, {}), RewardBreakdown(float("nan"), {})],
        [0.1, 0.2],
        Mean(),
    )
    assert found == ValidationSample(
        4, (1.0, None), ((1.0, 1.0), (3.0, 1.0)), (0.1, 0.2), (3, 2), (0.0, 0.0), (False, True), ("c", "q")
    )


def test_a_look_at_answers_that_were_all_cut_says_what_to_raise():
    asked = Prompt("q", (Message("user", "hi"),), "t", (1,), ("r",), {})
    with pytest.raises(UsageError) as caught:
        policy_validation.measure_validation(
            0, [asked], [Completion((5, 6), "1", False)], [RewardBreakdown(float("nan"), {})], [0.1], Mean()
        )
    assert caught.value.message == "align: all 1 answers of step 0 were cut at 2 tokens, so none could be rewarded"
    assert caught.value.hint == "raise align.max_new_tokens (now 2)"


def test_a_measure_that_applies_to_no_input_watches_nothing():
    class Applies(Mean):
        name = "check_facts"

        def __call__(self, questions, answers):
            return np.zeros((len(answers), 2))

        @staticmethod
        def combine(sums):
            return sums[..., 0] / sums[..., 1] if sums[..., 1].all() else np.full(sums.shape[:-1], np.nan)

    asked = Prompt("q", (Message("user", "hi"),), "t", (1,), ("r",), {})
    with pytest.raises(UsageError) as caught:
        policy_validation.measure_validation(
            0, [asked] * 2, [Completion((5, 2), "1", True)] * 2, [RewardBreakdown(1.0, {})] * 2, [0.1] * 2, Applies()
        )
    assert caught.value.message == (
        "align: check_facts is not a number on the 2 validation inputs, so nothing can be validated"
    )
    assert caught.value.hint == (
        "declare an align.validation.metric that applies to them, for example {method: score, name: chrf}"
    )

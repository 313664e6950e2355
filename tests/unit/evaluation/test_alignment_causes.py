"""Causes of an alignment that gains nothing: each rule on hand-made facts, and the order of several."""

from __future__ import annotations

from math import log

import pytest
from msgspec.structs import replace

from tunectl.evaluation import alignment_causes, policy_reward
from tunectl.evaluation.alignment_facts import AlignmentFacts, AlignmentGain, AlignmentRun, PolicyReward, ShareEstimate
from tunectl.evaluation.results import InputScores
from tunectl.evaluation.win_rate import WinRateSettings

RUN = AlignmentRun(
    method="rloo", steps=60, planned_steps=60, best_step=60, stopped=None, look_step=60, kl=3.0, rise=0.8, rise_low=0.5,
    rise_high=1.1, metric="chrf", metric_change=0.2, metric_low=-0.8, metric_high=1.1, within=True, reward_spread=0.6,
    truncated=0.02, settings={"steps": 60.0, "learning_rate": 5e-5, "beta": 0.2, "temperature": 0.7, "num_generations": 8.0},
    rewards={"reward_model": 1.0},
)  # fmt: skip
REWARD = PolicyReward(
    accuracy=ShareEstimate(0.8, 0.75, 0.85, 300), ensemble_size=1, order_chance=0.8, member_spread=0.0,
    wins=ShareEstimate(0.7, 0.6, 0.8, 140), judge="reward", own_accuracy=ShareEstimate(0.7, 0.6, 0.8, 90), expected=0.7,
)  # fmt: skip
GAIN = AlignmentGain(
    title="Win rate", metric="win_rate", verdict="not_enough_evidence", value=-1.0, low=-9.0, high=7.0, min_difference=1.0,
    inputs=140, available=140, same_answers=0.1, costs=[], no_judge="", judge_accuracy=ShareEstimate(0.85, 0.8, 0.9, 300),
)  # fmt: skip
"""A run that went well, on a judge that works, with no gain: no rule holds."""
DPO = replace(
    RUN, method="dpo", rise=0.1, rise_low=None, rise_high=None, reward_spread=None, truncated=None, rewards={},
    settings={"epochs": 1.0, "learning_rate": 2e-5, "beta": 0.1},
)  # fmt: skip


def find(*, run=RUN, gain=GAIN, reward=REWARD, **changes):
    """Causes of the usual facts with changes in the part that has the field."""
    parts = {"run": run, "gain": gain, "reward": reward}
    for name, part in parts.items():
        if part is not None:
            parts[name] = replace(
                part, **{key: value for key, value in changes.items() if key in type(part).__struct_fields__}
            )
    return alignment_causes.find_causes(AlignmentFacts(parts["run"], parts["gain"], parts["reward"]))


def only(**changes):
    causes = find(**changes)
    assert len(causes) == 1, [cause.name for cause in causes]
    return causes[0]


def test_a_sure_gain_has_no_cause_whatever_the_numbers_are():
    assert find(verdict="aligned_better", kl=0.0, rise=0.0, rise_low=-1.0, truncated=0.9, same_answers=1.0) == []


def test_where_no_rule_holds_that_is_said():
    cause = only()
    assert (cause.name, cause.strength) == ("none_fits", 0.0)
    assert cause.finding == (
        "No cause stands out: the policy moved by 3.00 nats an answer, what it learns from got better by 0.80, and 10 % of the "
        "test answers are the same as before."
    )
    assert "annotate.prepare.systems=[align,sft]" in cause.advice


def test_a_policy_that_hardly_moved():
    cause = only(kl=0.05)
    assert cause.name == "policy_hardly_moved"
    assert cause.finding == (
        "The policy hardly moved: 0.05 nats an answer from sft at step 60, less than choosing the better of two samples (0.19), "
        "and 10 % of the test answers are the same."
    )
    assert cause.advice == (
        "More align.steps (now 60), a larger align.learning_rate (now 5e-05) or a smaller align.beta (now 0.2)."
    )
    assert cause.strength == pytest.approx(1 - 0.05 / (log(2) - 0.5))
    assert only(kl=0.19).name == "policy_hardly_moved"
    assert only(kl=0.2).name == "none_fits"


def test_a_policy_that_stopped_early_says_why():
    cause = only(kl=0.05, steps=9, stopped="at step 9 the answers got longer")
    assert "Training stopped early, after 9 of 60 steps: at step 9 the answers got longer." in cause.finding


def test_without_a_tie_to_sft_no_smaller_one_is_proposed():
    assert "beta" not in only(kl=0.05, settings={"beta": 0.0}).advice


def test_a_policy_whose_answers_stay_the_same():
    cause = only(same_answers=0.8)
    assert cause.name == "policy_hardly_moved"
    assert "3.00 nats an answer), but 80 % of the test answers are the same" in cause.finding
    assert cause.advice == (
        "A lower align.temperature (now 0.7), more align.steps (now 60) or a larger align.learning_rate (now 5e-05)."
    )
    assert cause.strength == pytest.approx(0.6)


def test_two_causes_do_not_ask_for_opposite_temperatures():
    advice = " ".join(cause.advice for cause in find(same_answers=0.8, order_chance=0.52))
    assert "A higher align.temperature" in advice
    assert "lower align.temperature" not in advice


def test_pairs_are_passed_over_more_often_and_not_sampled():
    cause = only(run=DPO, reward=None, kl=0.05)
    assert cause.advice == (
        "More align.epochs (now 1), a larger align.learning_rate (now 2e-05) or a smaller align.beta (now 0.1)."
    )


def test_rewards_that_are_alike_by_the_reward_models_own_chances():
    cause = only(order_chance=0.55, reward_spread=0.1)
    assert cause.name == "rewards_alike"
    assert cause.finding == (
        "Answers to one prompt get nearly the same reward: they spread by 0.10, and the reward model itself gives the better of "
        "two only 55 %."
    )
    assert "align.temperature (now 0.7)" in cause.advice
    assert "align.num_generations (now 8)" in cause.advice
    assert cause.strength == pytest.approx(0.5)
    assert only(order_chance=0.6).name == "none_fits"


def test_rewards_that_spread_less_than_the_members_differ():
    cause = only(reward_spread=0.2, member_spread=0.4)
    assert (cause.name, cause.strength) == ("rewards_alike", pytest.approx(0.5))
    assert "its members differ by 0.40 about one answer" in cause.finding
    assert only(reward_spread=0.8, member_spread=0.4, rewards={"reward_model": 4.0}).name == "rewards_alike"


def test_checks_that_all_answers_pass_are_alike():
    assert (cause := only(reward=None, reward_spread=0.0)).name == "rewards_alike"
    assert cause.strength == 1


def test_a_reward_model_that_is_wrong_about_its_policy():
    cause = only(own_accuracy=ShareEstimate(0.52, 0.42, 0.62, 90))
    assert cause.name == "reward_model_wrong"
    assert cause.finding == (
        "The reward model is wrong about its policy's own answers: it prefers the aligned one on 70 % (60 to 80) of the test "
        "inputs, but orders the two as the reward judge does on 52 % (42 to 62) of 90; 70 % was to be expected, as it is right "
        "on 80 % (75 to 85) of held-out pairs."
    )
    assert "reward.ensemble_size=3 with an uncertainty_penalty" in cause.advice
    assert cause.strength == pytest.approx(0.9)


@pytest.mark.parametrize(
    "changes",
    [
        {"own_accuracy": ShareEstimate(0.61, 0.5, 0.7, 90)},
        {"own_accuracy": ShareEstimate(0.4, 0.2, 0.6, 19)},
        {"own_accuracy": None},
    ],
)
def test_a_reward_model_is_not_called_wrong_without_reason(changes):
    assert only(**changes).name == "none_fits"


def test_a_reward_that_did_not_rise_is_not_called_wrong():
    causes = find(
        own_accuracy=ShareEstimate(0.5, 0.4, 0.6, 90), rise=0.1, rise_low=-0.1, wins=ShareEstimate(0.5, 0.4, 0.6, 140)
    )
    assert [cause.name for cause in causes] == ["reward_not_risen"]


def test_a_guard_that_gave_back_the_weights_of_sft():
    cause = only(
        best_step=0, look_step=40, within=False, metric_change=-3.0, metric_low=-4.5, metric_high=-1.5, same_answers=1.0
    )
    assert (cause.name, cause.strength) == ("reward_model_wrong", 1.0)
    assert cause.finding == (
        "What it learns from got better by 0.80, but chrf moved by -3.0 (-4.5 to -1.5) at step 40, beyond "
        "align.validation.tolerance, so the weights of sft were kept."
    )


def test_a_judge_that_is_often_wrong():
    cause = only(judge_accuracy=ShareEstimate(0.65, 0.58, 0.72, 120))
    assert (cause.name, cause.strength) == ("judge_weak", pytest.approx(0.4))
    assert "right on 65 % (58 to 72) of 120 held-out pairs, so it shows 30 % of a true gain" in cause.finding
    assert "reward.evaluation_model.share" in cause.advice
    surely_worse = {"verdict": "aligned_worse", "value": -9.0, "low": -12.0, "high": -2.0}
    assert only(judge_accuracy=ShareEstimate(0.65, 0.58, 0.72, 120), **surely_worse).name == "none_fits"


def test_no_judge_at_all():
    cause = only(
        no_judge="there is no reward model (reward: none)", value=None, low=None, high=None, judge_accuracy=None
    )
    assert (cause.name, cause.strength) == ("judge_weak", 1.0)
    assert cause.finding == "Nobody could judge: there is no reward model (reward: none)."


def test_a_rise_without_an_interval_is_not_significant():
    cause = only(rise=0.8, rise_low=None, rise_high=None)
    assert cause.name == "reward_not_risen"
    assert "changed by +0.80 (too few rewarded answers for an interval) by step" in cause.finding


def test_a_reward_that_did_not_surely_rise():
    cause = only(rise=0.1, rise_low=-0.1, rise_high=0.3)
    assert (cause.name, cause.strength) == ("reward_not_risen", pytest.approx(0.25))
    assert "reward on validation changed by +0.10 (interval -0.10 to +0.30) by step 60 of 60" in cause.finding


def test_a_reward_that_fell_and_weights_of_sft_that_were_kept():
    cause = only(
        best_step=0, look_step=20, rise=-0.2, rise_low=-0.3, rise_high=-0.1, steps=20, stopped="it was too slow"
    )
    assert (cause.name, cause.strength) == ("reward_not_risen", 1.0)
    assert cause.finding.endswith(
        "Training stopped early, after 20 of 60 steps: it was too slow. The weights of sft were kept."
    )


def test_a_loss_that_did_not_fall():
    cause = only(run=replace(DPO, rise=-0.01), reward=None)
    assert cause.name == "reward_not_risen"
    assert "the loss on held-out judgments changed by +0.010" in cause.finding
    assert only(run=replace(DPO, rise=None), reward=None).name == "none_fits"


def test_a_gain_that_more_inputs_would_show():
    cause = only(value=4.0, low=-4.0, high=12.0, available=900)
    assert cause.name == "too_few_inputs"
    assert cause.finding == (
        "The test inputs may be too few: Win rate gains +4.0 points (-4.0 to +12.0) on 140; about 560 would show a gain of this "
        "size."
    )
    assert cause.advice == "A larger evaluate.max_inputs: there are 900."
    assert cause.strength == pytest.approx(1 - 3 / 9)
    assert "split.shares" in only(value=4.0, low=-4.0, high=12.0).advice
    assert only(value=1.5, low=-6.0, high=9.0).name == "none_fits", "25 times the inputs: the gain is small"


def test_inputs_so_few_that_nothing_has_an_interval():
    cause = only(value=3.0, low=None, high=None, inputs=1)
    assert (cause.name, cause.strength) == ("too_few_inputs", 1.0)


def test_answers_that_are_cut():
    cause = only(truncated=0.7)
    assert (cause.name, cause.strength) == ("answers_cut", pytest.approx(0.6))
    assert cause.finding.startswith("70 % of the sampled answers were cut at align.max_new_tokens")


def test_answers_that_are_cut_explain_equal_rewards():
    causes = find(truncated=0.94, reward_spread=0.0, kl=0.0, rise=0.0, rise_low=0.0, rise_high=0.0)
    assert [cause.name for cause in causes] == ["answers_cut", "policy_hardly_moved", "reward_not_risen"]


def test_a_gain_that_costs_too_much_has_that_cause_alone():
    cause = only(
        verdict="aligned_no_better", value=8.0, low=3.0, high=12.0, costs=["BLEU -2.5, interval -4.0 to -1.0"], kl=0.1
    )
    assert cause.name == "costs_too_much"
    assert "BLEU -2.5, interval -4.0 to -1.0" in cause.finding
    assert "a larger align.beta (now 0.2)" in cause.advice


def test_three_causes_at_most_the_strongest_first():
    causes = find(kl=0.0, truncated=0.7, order_chance=0.58, rise=0.0, rise_low=-0.1, rise_high=0.1)
    assert [cause.name for cause in causes] == ["policy_hardly_moved", "reward_not_risen", "answers_cut"]
    strengths = [cause.strength for cause in causes]
    assert strengths == sorted(strengths, reverse=True)


def test_two_judges_agree_as_often_as_their_errors_allow():
    assert policy_reward.expect_agreement(0.8, 1.0) == pytest.approx(0.8)
    assert policy_reward.expect_agreement(0.5, 0.9) == pytest.approx(0.5)
    assert policy_reward.expect_agreement(0.776, 0.72) == pytest.approx(0.621, abs=1e-3)


def test_the_chance_of_the_better_of_two_answers():
    assert policy_reward.bradley_terry_win_probability(0.0, 3.0) == 0.5
    assert policy_reward.bradley_terry_win_probability(1.0, 1.0) == pytest.approx(0.755, abs=1e-3)


def test_ties_of_either_judge_are_left_out_of_agreement():
    counting = WinRateSettings(0.1, 200, 0.95, 3)
    share = policy_reward.measure_agreement([1, 1, 0, 0.5, 1], [1, 0, 0, 1, 0.5], list("abcde"), counting)
    assert (share.value, share.pairs) == (pytest.approx(2 / 3), 3)
    assert share.low < share.value < share.high
    assert policy_reward.measure_agreement([0.5], [1.0], ["a"], counting) is None


def test_rules_order_by_slot_errors_and_not_by_a_check_that_was_rewarded():
    def row(**measures):
        return InputScores(
            "a",
            "a",
            {
                name: {key: [value[place], 4.0] for key, value in measures.items()}
                for place, name in enumerate(("aligned", "tuned"))
            },
        )

    slots = policy_reward.order_by_rules([row(slot_error=(1.0, 2.0), checks=(0.0, 1.0))], [])
    assert (slots.judge, slots.outcomes) == ("slots", [1.0])
    checks = policy_reward.order_by_rules([row(checks=(0.0, 1.0))], ["reward_model"])
    assert (checks.judge, checks.outcomes) == ("checks", [0.0])
    assert policy_reward.order_by_rules([row(checks=(0.0, 1.0))], ["reward_model", "check_polite"]) is None
    assert policy_reward.order_by_rules([row(bleu=(0.0, 1.0))], []) is None

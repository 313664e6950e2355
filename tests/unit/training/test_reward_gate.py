"""When a reward model may be learned from, and what is advised where it may not."""

import pytest

from tunectl.training.reward.reward_gate import GateContext, decide
from tunectl.training.reward.reward_metrics import Estimate, RewardMeasurement

AROUND = GateContext(train_pairs=1000, train_loss=0.5, validation_loss=0.55, judgments=100, alpha=0.8, longer_wins=None)
NOTHING = Estimate(0.0, -0.1, 0.1)


def measured(value, low, high, pairs=200, prompts=100):
    flat = Estimate(0.5, 0.4, 0.6)
    return RewardMeasurement(pairs, prompts, Estimate(value, low, high), flat, flat, [])


def test_above_chance_and_length_it_passes():
    found = decide(measured(0.88, 0.84, 0.92), Estimate(0.55, 0.5, 0.6), Estimate(0.33, 0.25, 0.4), AROUND)
    assert (found.passed, found.verdict, found.helps) == (True, "knows_preferences", [])
    assert found.reason == (
        "The reward model knows which answer is preferred: it is right on 88.0 % (84.0 to 92.0) of held-out pairs."
    )
    assert "Reward model minus lengths alone, on the same pairs: +33.0 points (+25.0 to +40.0)." in found.evidence


@pytest.mark.parametrize(("value", "low", "high"), [(0.53, 0.46, 0.6), (0.57, 0.5, 0.64), (0.3, 0.2, 0.4)])
def test_an_interval_that_holds_chance_is_a_no(value, low, high):
    found = decide(measured(value, low, high), Estimate(0.48, 0.4, 0.56), NOTHING, AROUND)
    assert (found.passed, found.verdict) == (False, "no_better_than_chance")
    assert found.reason == (
        f"The reward model knows no more than chance (50.0 %): it is right on {100 * value:.1f} % "
        f"({100 * low:.1f} to {100 * high:.1f}) of 200 held-out pairs."
    )


def test_an_interval_that_holds_the_length_baseline_is_a_no():
    found = decide(measured(0.7, 0.63, 0.77), Estimate(0.65, 0.6, 0.7), NOTHING, AROUND)
    assert (found.passed, found.verdict) == (False, "no_better_than_length")
    assert found.reason.startswith("The reward model knows no more than what lengths alone say (65.0 %)")


def test_lengths_are_measured_on_the_same_pairs_and_err_too():
    found = decide(measured(0.66, 0.605, 0.715), Estimate(0.6, 0.54, 0.66), Estimate(0.06, -0.02, 0.14), AROUND)
    assert (found.passed, found.verdict) == (False, "no_better_than_length")
    assert found.helps[0].startswith("More pairs: with this accuracy about 392 held-out pairs (now 200)")
    better = decide(measured(0.66, 0.58, 0.74), Estimate(0.6, 0.54, 0.66), Estimate(0.06, 0.01, 0.11), AROUND)
    assert better.passed
    assert decide(measured(0.56, 0.49, 0.63), Estimate(0.51, 0.4, 0.6), Estimate(0.05, 0.01, 0.1), AROUND).verdict == (
        "no_better_than_chance"
    )


def test_it_says_how_many_pairs_would_settle_it():
    found = decide(measured(0.55, 0.48, 0.62), Estimate(0.5, 0.4, 0.6), NOTHING, AROUND)
    assert found.helps[0] == (
        "More pairs: with this accuracy about 432 held-out pairs (now 200) would settle it; more training pairs (now 1000) raise the accuracy itself."
    )
    hopeless = decide(measured(0.5, 0.43, 0.57), Estimate(0.5, 0.4, 0.6), NOTHING, AROUND)
    assert hopeless.helps[0] == (
        "More training pairs (now 1000): the accuracy itself, 50.0 %, is too low for any number of held-out pairs."
    )


def test_too_few_prompts_give_no_interval():
    found = decide(measured(1.0, None, None, 3, 1), Estimate(0.5, None, None), Estimate(0.5, None, None), AROUND)
    assert (found.passed, found.verdict) == (False, "too_few_pairs")
    assert found.reason == "The reward model cannot be judged: 3 held-out pairs of 1 prompt give no interval."


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"alpha": None}, "Agreement is unknown: let several people judge the same pairs"),
        ({"alpha": 0.31}, "People agree weakly (Krippendorff's alpha 0.31, 0.667 is wanted)"),
        ({"longer_wins": 0.66}, "The longer answer wins 66% of the pairs: ask about answers of similar length."),
        ({"longer_wins": 0.3}, "The shorter answer wins 70% of the pairs"),
        ({"train_loss": 0.2}, "It learns pairs by heart: the training loss is 0.200, that of validation 0.550."),
        ({"validation_loss": 0.69}, "It hardly learned: the validation loss is 0.690, and 0.693 is where it starts."),
    ],
)
def test_what_would_help(change, says):
    from dataclasses import replace

    around = replace(AROUND, **{"train_loss": None, **change})
    found = decide(measured(0.5, 0.4, 0.6), Estimate(0.5, 0.4, 0.6), NOTHING, around)
    assert any(line.startswith(says) for line in found.helps), found.helps


def test_pairs_that_nobody_judged_need_no_agreement():
    from dataclasses import replace

    around = replace(AROUND, judgments=0, alpha=None)
    found = decide(measured(0.5, 0.4, 0.6), Estimate(0.5, 0.4, 0.6), NOTHING, around)
    assert not any("greement" in line for line in found.helps)

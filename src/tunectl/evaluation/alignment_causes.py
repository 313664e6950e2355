"""Find why the aligned model is not significantly better than the tuned one: likely causes, strongest first. Pure functions.

Each rule compares one number with one threshold. Its strength is the distance of the number from the threshold: 0 at the
threshold, 1 at the extreme. Several rules may hold, because causes come together; equally strong ones stay in the order of
the training itself: sampling, reward, policy, judge, test set, costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, log

from tunectl.evaluation.alignment_facts import (
    AlignmentCause,
    AlignmentFacts,
    AlignmentGain,
    AlignmentRun,
    ShareEstimate,
)
from tunectl.evaluation.alignment_gate import BETTER
from tunectl.evaluation.gate import UNCLEAR

MAX_CAUSES = 3
"""Most causes that are named: more are too many to try."""
LOW_KL = log(2) - 0.5
"""0.19 nats per answer: the KL of choosing the better of two samples (best-of-n has log n - (n - 1) / n; Gao et al., arXiv
2210.10760). A policy that moved less can hardly gain more than that choice would."""
MANY_SAME = 0.5
"""Share of equal answers from which a win rate is between 25 and 75 %: half of all pairs are ties."""
ALIKE = 0.6
"""Probability of the better of two answers below which the order is mostly noise: two of five are in the wrong order."""
NEARER_CHANCE = 0.5
"""Share of the distance from the expected accuracy down to chance: beyond it the measured one is nearer to chance."""
MIN_DECIDED = 20
"""Number of pairs below which a share is not used: its 95 % interval is wider than 20 points on either side."""
WEAK_JUDGE = 0.75
"""Accuracy below which more than half of a true gain is lost: a judge that is right with probability a shows 2a - 1 of it, and at
0.75 four times the inputs are needed."""
MAX_INPUT_FACTOR = 10
"""Where more than ten times the inputs would be needed, the small gain is the cause and not the test set."""
MANY_CUT = 0.25
"""Share of cut answers from which sampling is a quarter less useful: a cut answer gets no reward and no gradient."""
OFFLINE = frozenset({"dpo", "kto"})


def find_causes(facts: AlignmentFacts) -> list[AlignmentCause]:
    """Return at most three causes why aligned is not significantly better than tuned, strongest first; empty where it is better.

    The only cause is ``none_fits`` where no rule holds. Where aligned gains enough and costs too much, the costs are the only cause.
    """
    gain = facts.gain
    if gain.verdict == BETTER:
        return []
    costs = list(_find_cost(facts))
    has_gain = gain.low is not None and gain.low > 0 and (gain.value or 0) >= gain.min_difference
    if costs and has_gain:
        return costs
    rules = (
        _find_cut_answers,
        _find_equal_rewards,
        _find_small_change,
        _find_no_gain,
        _find_wrong_reward,
        _find_weak_judge,
        _find_too_few_inputs,
    )
    causes = [*(cause for rule in rules for cause in rule(facts)), *costs]
    causes.sort(key=lambda cause: -cause.strength)
    return causes[:MAX_CAUSES] or [_explain_none(facts)]


def describe_share(share: ShareEstimate) -> str:
    """Return a share with its interval: ``52 % (43 to 61)``."""
    ends = "" if share.low is None or share.high is None else f" ({100 * share.low:.0f} to {100 * share.high:.0f})"
    return f"{100 * share.value:.0f} %{ends}"


def _find_cost(facts: AlignmentFacts) -> Iterator[AlignmentCause]:
    if facts.gain.costs:
        yield AlignmentCause(
            "costs_too_much",
            f"Aligning costs more than evaluate.aligned.max_regression allows: {', '.join(facts.gain.costs)}.",
            f"Hold the policy nearer to sft: {_list_settings(facts.run, ('a larger', 'beta'), _fewer_steps(facts.run))}; or "
            "reward what was lost with a check in align.rewards.",
            1.0,
        )


def _find_cut_answers(facts: AlignmentFacts) -> Iterator[AlignmentCause]:
    share = facts.run.truncated
    if share is not None and share >= MANY_CUT:
        yield AlignmentCause(
            "answers_cut",
            f"{100 * share:.0f} % of the sampled answers were cut at align.max_new_tokens, and a cut answer teaches nothing.",
            f"{_list_settings(facts.run, ('A larger', 'max_new_tokens'))}, a length term in align.rewards, or an sft on "
            "answers that end.",
            1.0 if facts.run.reward_spread == 0 else (share - MANY_CUT) / (1 - MANY_CUT),
        )


def _find_equal_rewards(facts: AlignmentFacts) -> Iterator[AlignmentCause]:
    """Yield the spread of rewards within a prompt is small beside the reward model's own noise.

    The noise is the model's own estimate: the probability of the better of two answers, and, with several members, their spread.
    """
    reward, spread = facts.reward, facts.run.reward_spread
    if spread is None or (
        spread == 0 and any(_find_cut_answers(facts))
    ):  # where all but one are cut, nothing is left to compare
        return
    chance = None if reward is None else reward.order_chance
    noise = 0.0 if reward is None else reward.member_spread
    if spread == 0:
        detail, strength = "all answers to one prompt get the same reward", 1.0
    elif noise > spread / facts.run.rewards.get("reward_model", 1.0):
        detail = f"its members differ by {noise:.2f} about one answer"
        strength = 1 - spread / facts.run.rewards.get("reward_model", 1.0) / noise
    elif chance is not None and chance < ALIKE:
        detail = f"the reward model itself gives the better of two only {100 * chance:.0f} %"
        strength = (ALIKE - chance) / (ALIKE - 0.5)
    else:
        return
    yield AlignmentCause(
        "rewards_alike",
        f"Answers to one prompt get nearly the same reward: they spread by {spread:.2f}, and {detail}.",
        f"{_list_settings(facts.run, ('A higher', 'temperature'), ('a larger', 'num_generations'))}, or pairs with more "
        "contrast for the reward model (preferences.contrast, pairs from several models).",
        strength,
    )


def _find_small_change(facts: AlignmentFacts) -> Iterator[AlignmentCause]:
    run, same = facts.run, facts.gain.same_answers
    online = run.method not in OFFLINE
    if run.kl < LOW_KL:
        equal = f", and {100 * same:.0f} % of the test answers are the same" if run.best_step else ""
        smaller = [("a smaller", "beta")] if run.settings.get("beta") else []
        yield AlignmentCause(
            "policy_hardly_moved",
            f"The policy hardly moved: {run.kl:.2f} nats an answer from sft at step {run.look_step}, less than choosing the "
            f"better of two samples ({LOW_KL:.2f}){equal}.{_explain_stop(run)}",
            f"{_list_settings(run, ('More', 'steps' if online else 'epochs'), ('a larger', 'learning_rate'), *smaller)}.",
            1 - run.kl / LOW_KL,
        )
    elif run.best_step and same >= MANY_SAME:
        changes = [("More", "steps" if online else "epochs")]
        if online and not any(_find_equal_rewards(facts)):  # whose advice is the opposite
            changes = [("A lower", "temperature"), ("more", "steps")]
        yield AlignmentCause(
            "policy_hardly_moved",
            f"The policy moved ({run.kl:.2f} nats an answer), but {100 * same:.0f} % of the test answers are the same: what it "
            "learned shows in samples more than in the answers that evaluate generates.",
            f"{_list_settings(run, *changes, ('a larger', 'learning_rate'))}.",
            (same - MANY_SAME) / (1 - MANY_SAME),
        )


def _find_no_gain(facts: AlignmentFacts) -> Iterator[AlignmentCause]:
    """Yield the cause that the training objective did not significantly improve on validation."""
    run = facts.run
    if run.rise is None or _has_risen(run) or _guard_refused(run):
        return
    ends = (
        " (too few rewarded answers for an interval)"
        if run.rise_low is None or run.rise_high is None
        else f" (interval {run.rise_low:+.2f} to {run.rise_high:+.2f})"
    )
    changed = (
        f"loss on held-out judgments changed by {-run.rise:+.3f}"
        if run.method in OFFLINE
        else f"reward on validation changed by {run.rise:+.2f}{ends}"
    )
    weights_note = "" if run.best_step else " The weights of sft were kept."
    width = 0.0 if run.rise_low is None or run.rise_high is None else run.rise_high - run.rise_low
    below = 1.0 if not width or run.rise <= 0 else -(run.rise_low or 0.0) / width
    yield AlignmentCause(
        "reward_not_risen",
        f"What the policy learns from did not improve significantly: the {changed} by step {run.look_step} of {run.planned_steps}."
        f"{_explain_stop(run)}{weights_note}",
        f"{_list_settings(run, ('More', 'epochs' if run.method in OFFLINE else 'steps'), ('another', 'learning_rate'))}: larger "
        "where the curve in the align report is flat, smaller where it falls.",
        min(1.0, below),
    )


def _find_wrong_reward(facts: AlignmentFacts) -> Iterator[AlignmentCause]:
    """Yield the cause that the reward rose without any independent judge seeing it: the reward model is wrong about the answers of its policy."""
    run, reward = facts.run, facts.reward
    advice = (
        "More pairs for the reward model, best of the policy's own answers (tunectl annotate "
        "annotate.prepare.systems=[align,sft]); reward.ensemble_size=3 with an uncertainty_penalty in align.rewards; or "
        f"{_list_settings(run, ('a larger', 'beta'))}."
    )
    if run.method in OFFLINE:
        advice = f"More pairs, best of the policy's own answers, or {_list_settings(run, ('a larger', 'beta'))}."
    if _guard_refused(run):
        rose = "" if run.rise is None else f"What it learns from got better by {run.rise:.2f}, but "
        yield AlignmentCause(
            "reward_model_wrong",
            f"{rose}{run.metric} moved by {run.metric_change:+.1f} ({run.metric_low:+.1f} to {run.metric_high:+.1f}) at step "
            f"{run.look_step}, beyond align.validation.tolerance, so the weights of sft were kept.",
            advice,
            1.0,
        )
        return
    own = None if reward is None else reward.own_accuracy
    if reward is None or own is None or own.pairs < MIN_DECIDED or reward.expected <= 0.5:
        return
    liked = reward.wins.low is not None and reward.wins.low > 0.5
    short = (reward.expected - own.value) / (reward.expected - 0.5)
    if (liked or _has_risen(run)) and short >= NEARER_CHANCE:
        yield AlignmentCause(
            "reward_model_wrong",
            f"The reward model is wrong about its policy's own answers: it prefers the aligned one on {describe_share(reward.wins)} "
            f"of the test inputs, but orders the two as {name_judge(reward.judge)} does on {describe_share(own)} of {own.pairs}; "
            f"{100 * reward.expected:.0f} % was to be expected, as it is right on {describe_share(reward.accuracy)} of "
            "held-out pairs.",
            advice,
            min(1.0, short),
        )


def _find_weak_judge(facts: AlignmentFacts) -> Iterator[AlignmentCause]:
    """Yield the cause that the judge cannot measure a gain, because it is absent or often wrong."""
    gain = facts.gain
    advice = (
        "More preference pairs, a larger reward.evaluation_model.share, or people as judges (tunectl annotate "
        "annotate.prepare.systems=[align,sft], evaluate.aligned.human_judgments_dir)."
    )
    if gain.no_judge:
        yield AlignmentCause("judge_weak", f"Nobody could judge: {gain.no_judge}.", advice, 1.0)
        return
    accuracy = gain.judge_accuracy
    is_undecided = gain.low is None or gain.high is None or gain.low <= 0 <= gain.high
    if accuracy is not None and accuracy.value < WEAK_JUDGE and is_undecided:
        yield AlignmentCause(
            "judge_weak",
            f"The judge may be too weak to see it: it is right on {describe_share(accuracy)} of {accuracy.pairs} held-out pairs, so "
            f"it shows {100 * max(0.0, 2 * accuracy.value - 1):.0f} % of a true gain.",
            advice,
            min(1.0, (WEAK_JUDGE - accuracy.value) / (WEAK_JUDGE - 0.5)),
        )


def _find_too_few_inputs(facts: AlignmentFacts) -> Iterator[AlignmentCause]:
    """Yield the cause that the sample shows a gain, but its interval is too wide for significance."""
    gain = facts.gain
    if gain.verdict != UNCLEAR or gain.no_judge:
        return
    if gain.value is None or gain.low is None or gain.high is None:
        finding, strength = f"{gain.title} has no interval on {gain.inputs} test inputs.", 1.0
    else:
        factor = ((gain.high - gain.low) / 2 / gain.value) ** 2 if gain.value > 0 else float("inf")
        if gain.low > 0 or gain.value < gain.min_difference or factor > MAX_INPUT_FACTOR:
            return
        finding = (
            f"The test inputs may be too few: {gain.title} gains {gain.value:+.1f} points ({gain.low:+.1f} to {gain.high:+.1f}) on "
            f"{gain.inputs}; about {_round_up(gain.inputs * factor)} would show a gain of this size."
        )
        strength = 1 - max(0.0, factor - 1) / (MAX_INPUT_FACTOR - 1)
    yield AlignmentCause("too_few_inputs", finding, _advise_inputs(gain), strength)


def _advise_inputs(gain: AlignmentGain) -> str:
    if gain.available > gain.inputs:
        return f"A larger evaluate.max_inputs: there are {gain.available}."
    return "More data, or a larger test part in split.shares: all test inputs were asked."


def _explain_none(facts: AlignmentFacts) -> AlignmentCause:
    run, gain = facts.run, facts.gain
    rise = "" if run.rise is None else f", what it learns from got better by {run.rise:.2f}"
    return AlignmentCause(
        "none_fits",
        f"No cause stands out: the policy moved by {run.kl:.2f} nats an answer{rise}, and {100 * gain.same_answers:.0f} % of the "
        "test answers are the same as before.",
        "Read the answers that aligning changed most in the evaluation report, and let people compare them: tunectl annotate "
        "annotate.prepare.systems=[align,sft].",
        0.0,
    )


def _has_risen(run: AlignmentRun) -> bool:
    """Return whether the training objective significantly improved at the validation; a loss has no interval and need only fall.

    A reward without an interval (too few answers have one) is not significant.
    """
    if run.rise is None:
        return False
    return run.rise > 0 if run.method in OFFLINE else run.rise_low is not None and run.rise_low > 0


def _guard_refused(run: AlignmentRun) -> bool:
    """Return whether sft's weights were kept although later ones had a better objective, because the independent metric fell."""
    return not run.best_step and not run.within and (run.rise is None or run.rise > 0)


def _explain_stop(run: AlignmentRun) -> str:
    return (
        f" Training stopped early, after {run.steps} of {run.planned_steps} steps: {run.stopped}."
        if run.stopped
        else ""
    )


def _fewer_steps(run: AlignmentRun) -> tuple[str, str]:
    return "fewer", "epochs" if run.method in OFFLINE else "steps"


def _list_settings(run: AlignmentRun, *changes: tuple[str, str]) -> str:
    """Return suggested changes of settings as text, each with its value of this run: ``more align.steps (now 6), ...``."""
    values = {key: f" (now {value:g})" for key, value in run.settings.items()}
    changes_text = [f"{verb} align.{key}{values.get(key, '')}" for verb, key in changes]
    return changes_text[0] if len(changes_text) == 1 else f"{', '.join(changes_text[:-1])} or {changes_text[-1]}"


def name_judge(judge: str) -> str:
    """Return the name of a judge of ``WinRate`` as text, for example ``the slot error rate``."""
    return {"reward": "the reward judge", "slots": "the slot error rate", "checks": "the rate of checks passed"}.get(
        judge, judge
    )


def _round_up(number: float) -> int:
    """Return the number rounded up to two significant digits: a projection is no exact count."""
    unit: int = 10 ** max(0, len(str(int(number))) - 2)
    return ceil(number / unit) * unit

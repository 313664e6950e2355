"""Decide whether the reward model is good enough for training. A pure function of figures with their intervals."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log

from msgspec import Struct, field

from tunectl.training.reward.reward_metrics import Estimate, RewardMeasurement

KNOWS, CHANCE, LENGTH, FEW = "knows_preferences", "no_better_than_chance", "no_better_than_length", "too_few_pairs"
ALPHA = 0.667
"""Krippendorff's own limit of agreement below which no conclusion should be drawn."""
OVERFIT_GAP = 0.15
"""Nats between training and validation loss from which the model counts as overfitted."""


class RewardGateResult(Struct, frozen=True):
    """Content of the reward stage's ``verdict.json``: whether the reward model may be used in training, and why."""

    passed: bool
    """Whether the reward model may be used in training."""
    verdict: str
    """knows_preferences, no_better_than_chance, no_better_than_length or too_few_pairs."""
    reason: str
    """One sentence for people."""
    evidence: list[str] = field(default_factory=list)
    helps: list[str] = field(default_factory=list)
    """What would help, most likely first; empty where it passed."""


@dataclass(frozen=True, slots=True)
class GateContext:
    """Numbers about the training and its pairs that explain a failed gate; None where one is unknown."""

    train_pairs: int
    train_loss: float | None
    """Last mean of training, nats per pair."""
    validation_loss: float
    """Best validation loss, nats per pair."""
    judgments: int
    """Number of people's judgments; 0 where all pairs were made from references."""
    alpha: float | None
    """Krippendorff's alpha of the annotators."""
    longer_wins: float | None
    """Share of the pairs in which the longer answer won, where its interval excludes a half."""


def decide(test: RewardMeasurement, length: Estimate, gain: Estimate, context: GateContext) -> RewardGateResult:
    """Return whether the reward model's held-out accuracy (``test``) beats chance (0.5) and ``length``, the accuracy of lengths alone.

    It does where the lower end of its interval is above a half and, if lengths say more than chance, so is that of ``gain``, the
    accuracy minus ``length`` on the same pairs, above 0.
    """
    beats_lengths = length.value <= 0.5 or (gain.low is not None and gain.low > 0)
    rival, name, bar = ("chance", CHANCE, 0.5) if beats_lengths else ("what lengths alone say", LENGTH, length.value)
    low = test.accuracy.low
    above_chance = Estimate(test.accuracy.value - 0.5, None if low is None else low - 0.5, None)
    margin = above_chance if beats_lengths else gain
    evidence = [
        f"Accuracy on {test.pairs} held-out pairs of {test.prompts} prompts: {format_percent(test.accuracy)}.",
        f"Lengths alone: {format_percent(length)}; chance: 50.0 %.",
        f"Reward model minus lengths alone, on the same pairs: {format_points(gain)}.",
        f"Log-loss {format_estimate(test.log_loss)} nats a pair; guessing 50 % has {log(2):.3f}.",
        f"Calibration error {format_percent(test.ece)}.",
    ]
    if low is None:
        test_size = f"{test.pairs} held-out pair{'' if test.pairs == 1 else 's'} of {test.prompts} prompt{'' if test.prompts == 1 else 's'}"
        return RewardGateResult(
            False,
            FEW,
            f"The reward model cannot be judged: {test_size} give no interval.",
            evidence,
            _helps(test, margin, context),
        )
    if low > 0.5 and beats_lengths:
        reason = f"The reward model knows which answer is preferred: it is right on {format_percent(test.accuracy)} of held-out pairs."
        return RewardGateResult(True, KNOWS, reason, evidence)
    reason = (
        f"The reward model knows no more than {rival} ({100 * bar:.1f} %): it is right on {format_percent(test.accuracy)} "
        f"of {test.pairs} held-out pairs."
    )
    return RewardGateResult(False, name, reason, evidence, _helps(test, margin, context))


def _helps(test: RewardMeasurement, margin: Estimate, context: GateContext) -> list[str]:
    result = [_more_pairs(test, margin, context.train_pairs)]
    if context.train_loss is not None and context.train_loss < context.validation_loss - OVERFIT_GAP:
        result.append(
            f"It learns pairs by heart: the training loss is {context.train_loss:.3f}, that of validation "
            f"{context.validation_loss:.3f}. Fewer reward.epochs, a lower reward.lora_rank, or more pairs."
        )
    elif context.validation_loss > log(2) - 0.02:
        result.append(
            f"It hardly learned: the validation loss is {context.validation_loss:.3f}, and {log(2):.3f} is where it starts. "
            "A higher reward.learning_rate or more reward.epochs."
        )
    if context.judgments and context.alpha is None:
        result.append(
            "Agreement is unknown: let several people judge the same pairs (tunectl annotate, tunectl data agreement)."
        )
    elif context.alpha is not None and context.alpha < ALPHA:
        result.append(
            f"People agree weakly (Krippendorff's alpha {context.alpha:.2f}, {ALPHA} is wanted): settle what makes an answer "
            "better; no model can know more than they agree on."
        )
    if context.longer_wins is not None:
        size, share = (
            ("longer", context.longer_wins) if context.longer_wins > 0.5 else ("shorter", 1 - context.longer_wins)
        )
        result.append(f"The {size} answer wins {share:.0%} of the pairs: ask about answers of similar length.")
    return result


def _more_pairs(test: RewardMeasurement, margin: Estimate, train: int) -> str:
    """Return how many held-out pairs would be enough, if the measured ``margin`` over the rival were the true one: widths fall with the square root."""
    if test.accuracy.low is None or margin.low is None:
        return f"More pairs of more prompts: {test.prompts} held-out prompts give no interval, and a few hundred are usual."
    if margin.value <= 0.005:
        return f"More training pairs (now {train}): the accuracy itself, {100 * test.accuracy.value:.1f} %, is too low for any number of held-out pairs."
    needed = ceil(test.pairs * ((margin.value - margin.low) / margin.value) ** 2 * 1.1)
    return (
        f"More pairs: with this accuracy about {needed} held-out pairs (now {test.pairs}) would settle it; more training "
        f"pairs (now {train}) raise the accuracy itself."
    )


def format_percent(figure: Estimate) -> str:
    """Return a share with its interval, as text: ``88.4 % (84.1 to 92.0)``."""
    ends = "" if figure.low is None or figure.high is None else f" ({100 * figure.low:.1f} to {100 * figure.high:.1f})"
    return f"{100 * figure.value:.1f} %{ends}"


def format_points(figure: Estimate) -> str:
    """Return a difference of shares with its interval as text, in percentage points."""
    ends = (
        "" if figure.low is None or figure.high is None else f" ({100 * figure.low:+.1f} to {100 * figure.high:+.1f})"
    )
    return f"{100 * figure.value:+.1f} points{ends}"


def format_estimate(figure: Estimate) -> str:
    """Return an estimate with its interval as text, three decimals: ``0.412 (0.380 to 0.447)``."""
    ends = "" if figure.low is None or figure.high is None else f" ({figure.low:.3f} to {figure.high:.3f})"
    return f"{figure.value:.3f}{ends}"

"""Facts about a run of align after evaluate: how training went, how good its reward model is, what was gained."""

from __future__ import annotations

from msgspec import Struct, field


class ShareEstimate(Struct, frozen=True):
    """A share from 0 to 1 with its interval."""

    value: float
    low: float | None
    """Lower end of the interval; None where there are too few pairs for one."""
    high: float | None
    pairs: int


class AlignmentRun(Struct, frozen=True):
    """Facts from ``align.json``: steps, KL, and the change of reward and metric.

    ``look_step``: the validation whose weights were kept, or the best later one where those of sft were kept.
    """

    method: str
    """rloo, grpo, dpo or kto."""
    steps: int
    planned_steps: int
    best_step: int
    """Step whose weights were kept; 0: those of sft."""
    stopped: str | None
    """Why it stopped early; None where it did not."""
    look_step: int
    kl: float
    """Nats per answer between policy and sft at that validation."""
    rise: float | None
    """Rise of the validation reward since step 0 (rloo, grpo), or fall of the loss on held-out judgments (dpo, kto), at that
    validation; None where no judgments were held out."""
    rise_low: float | None
    """Lower end of its interval; None for a loss, which has no interval."""
    rise_high: float | None
    metric: str
    """Name of the independent metric."""
    metric_change: float
    """Points since step 0, at that validation."""
    metric_low: float
    metric_high: float
    within: bool
    """Whether the metric is within ``align.validation.tolerance`` at that validation."""
    reward_spread: float | None
    """Standard deviation of the rewards of one prompt's answers, mean over prompts and steps; None for dpo and kto."""
    truncated: float | None
    """Share of the sampled answers that were cut, mean over steps; None for dpo and kto."""
    settings: dict[str, float] = field(default_factory=dict)
    """Numbers of the align section, by key."""
    rewards: dict[str, float] = field(default_factory=dict)
    """Weight of each reward term; empty for dpo and kto."""


class PolicyReward(Struct, frozen=True):
    """How well the reward model orders answers: on test pairs of preferences, and on the policy's own answers."""

    accuracy: ShareEstimate
    """Accuracy on held-out pairs."""
    ensemble_size: int
    order_chance: float | None
    """Probability, 0.5 to 1, that the reward model itself gives to the better of two answers to one prompt; None without a spread."""
    member_spread: float
    """Standard deviation over the ensemble, mean over tuned and aligned test answers; 0 with one member."""
    wins: ShareEstimate
    """Share of the test inputs whose aligned answer gets a higher score than the tuned one (mean over its members), ties half."""
    judge: str
    """The independent judge: reward, slots or checks; empty where there was none."""
    own_accuracy: ShareEstimate | None
    """Share of the inputs on which it orders the tuned and the aligned answer as that judge does, of those that both decide."""
    expected: float
    """The expected value of that share, if both are as accurate here as on held-out pairs."""


class AlignmentGain(Struct, frozen=True):
    """Difference of aligned and tuned in the primary metric of the aligned gate, and what it costs in the others."""

    title: str
    """Title of the metric."""
    metric: str
    verdict: str
    value: float | None
    """Points, above 0 is better; None where it could not be measured."""
    low: float | None
    high: float | None
    min_difference: float
    inputs: int
    available: int
    """Number of test inputs in the split."""
    same_answers: float
    """Share of the test inputs with the same answer of both, 0 to 1."""
    costs: list[str]
    """Metrics that lost more than ``evaluate.aligned.max_regression`` allows, each with its number."""
    no_judge: str
    """Why the primary judge is absent; empty where it is not."""
    judge_accuracy: ShareEstimate | None
    """Accuracy of the evaluation reward model on held-out pairs; None where it does not decide."""


class AlignmentFacts(Struct, frozen=True):
    """Everything that the causes of a missing gain are derived from: run of align, gain, reward model."""

    run: AlignmentRun
    gain: AlignmentGain
    reward: PolicyReward | None
    reward_absent: str = ""
    """Why the reward model was not measured on the policy's own answers; empty where it was."""


class AlignmentCause(Struct, frozen=True):
    """A likely reason why the aligned model is not significantly better, with what was found and what to try."""

    name: str
    """policy_hardly_moved, rewards_alike, reward_model_wrong, judge_weak, reward_not_risen, too_few_inputs, answers_cut,
    costs_too_much, or none_fits."""
    finding: str
    """Description of the cause, with the number."""
    advice: str
    """What to try."""
    strength: float
    """Distance of the number from its threshold: 0 at the threshold, 1 at its extreme."""

"""Text of the align report: method, result, warnings, and answers over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tunectl.config.schema.align import (
    CheckTerm,
    Dpo,
    Grpo,
    Kto,
    RepetitionTerm,
    RewardModelTerm,
    RewardTerm,
    Rloo,
    ScoreMeasure,
)
from tunectl.training.rl.rl_types import RlResult, Sample, StepMetrics, ValidationPoint

LENGTH_RATIO = 1.25
"""Ratio of the length of answers to those of sft from which there is a warning."""
REPETITION_INCREASE = 0.05
"""Increase of repetition, as a share of the runs of three words, from which there is a warning."""
MIN_SPREAD_RATIO = 0.25
"""Share of its first value to which the spread of rewards within a prompt may fall before there is a warning."""
TRUNCATED_SHARE = 0.1
"""Share of answers cut at the length limit from which there is a warning."""

AlignSettings = Rloo | Grpo | Dpo | Kto
TITLES = {"bleu": "BLEU", "chrf": "chrF"}


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """The sentence at the top of the align report, and the color it is shown in."""

    kind: Literal["good", "warn", "bad"]
    text: str


@dataclass(frozen=True, slots=True)
class AnswerAtStep:
    """The policy's answer to one validation input at one validation."""

    step: int
    reward: float | None
    """None where the answer was cut."""
    text: str
    same: bool
    """Whether it equals the answer at the previous validation."""
    kept: bool
    """Whether the weights of this validation were kept."""


@dataclass(frozen=True, slots=True)
class AnswerHistory:
    """One validation input, its references, and the policy's answers at every validation."""

    prompt: str
    references: list[str]
    versions: list[AnswerAtStep]


def measure_title(settings: AlignSettings) -> str:
    """Return the title of the independent metric of validation, for example ``chrF``."""
    measure = settings.validation.metric
    return TITLES[measure.name] if isinstance(measure, ScoreMeasure) else f"check {measure.check.name}"


def find_selected_checkpoint(aligned: RlResult) -> ValidationPoint:
    """Return the validation whose weights were kept."""
    return next(point for point in aligned.validation if point.step == aligned.best_step)


def verdict(settings: AlignSettings, aligned: RlResult) -> RunOutcome:
    """Return the result of the run as one sentence, with the color in which the report shows it."""
    point = find_selected_checkpoint(aligned)
    reason = f" Stopped early: {aligned.stopped}." if aligned.stopped else ""
    if point.step == 0:
        return RunOutcome("warn", f"The weights of sft were kept: no later ones were better.{reason}")
    moved = f"while {measure_title(settings)} moved by {format_metric_change(point)}."
    if isinstance(settings, Dpo | Kto) and point.held_out_loss is None:
        return RunOutcome("warn", f"No judgments were held out, so no gain can be shown, {moved}{reason}")
    gain = f"{_gain(aligned)} at step {point.step}, {moved}"
    if point.held_out_loss is not None:  # the checkpoint was chosen by this loss, so it always fell
        return RunOutcome("warn", f"{gain} Whether the answers are better, evaluate says.{reason}")
    if not _is_reward_higher(point, aligned.validation[0]):
        return RunOutcome("warn", f"No certain gain. {gain}{reason}")
    return RunOutcome("good" if point.within and not aligned.stopped else "warn", f"{gain}{reason}")


def _is_reward_higher(point: ValidationPoint, first: ValidationPoint) -> bool:
    """Return whether the kept weights are significantly better by the reward."""
    return point.reward_low is not None and point.reward_low > first.reward


def _gain(aligned: RlResult) -> str:
    first, selected = aligned.validation[0], find_selected_checkpoint(aligned)
    if selected.held_out_loss is not None and first.held_out_loss is not None:
        right = (
            ""
            if selected.held_out_accuracy is None
            else f", {100 * selected.held_out_accuracy:.0f} % of the pairs ranked right,"
        )
        return f"Loss on held-out judgments from {first.held_out_loss:.3f} to {selected.held_out_loss:.3f}{right}"
    low, high = selected.reward_low, selected.reward_high
    ends = (
        "too few rewarded answers for an interval"
        if low is None or high is None
        else f"{low - first.reward:+.2f} to {high - first.reward:+.2f}"
    )
    return f"Reward {selected.reward - first.reward:+.2f} ({ends}) over sft"


def format_metric_change(point: ValidationPoint) -> str:
    """Return the change of the independent metric since step 0, with its interval, in points."""
    return f"{point.metric_change:+.1f} ({point.metric_low:+.1f} to {point.metric_high:+.1f})"


def run_summary(settings: AlignSettings, aligned: RlResult) -> list[str]:
    """Return the summary of the run for a terminal, one sentence per line."""
    lines = [
        _method(settings),
        f"{_describe_kl_penalty(settings)} The peak learning rate was {settings.learning_rate:g}.",
    ]
    if isinstance(settings, Rloo | Grpo):
        parts = ", ".join(f"{describe_reward_term(term)} × {term.weight:g}" for term in settings.rewards)  # noqa: RUF001  as readers know it
        lines.append(f"The reward was {parts}.")
    else:
        lines.append(
            f"Nothing outside rewards an answer here: its reward is beta ({settings.beta:g}) times how much likelier it has "
            "become than it was for sft."
        )
    lines.append(
        f"Every {settings.validation.eval_steps} steps the same validation inputs were answered greedily. {measure_title(settings)} "
        "of those answers, which the reward does not see, guards against a reward that is fooled."
    )
    ended = "stopped early" if aligned.stopped else "ran to the end"
    lines.append(
        f"Training {ended}, after {aligned.steps} of {aligned.planned_steps} steps and {aligned.answers:,} answers. The "
        f"weights of step {aligned.best_step} were kept{' (those of sft)' if aligned.best_step == 0 else ''}."
    )
    return lines


def _method(settings: AlignSettings) -> str:
    if isinstance(settings, Rloo | Grpo):
        title = "RLOO" if isinstance(settings, Rloo) else "GRPO"
        return (
            f"{title}: at each step the model wrote {settings.num_generations} answers to each of "
            f"{settings.prompts_per_step} inputs, and answers that beat the others of their input became likelier."
        )
    if isinstance(settings, Dpo):
        return (
            f"DPO (loss {settings.loss}): pairs that people judged, {settings.batch_size} a step; the chosen answer became "
            "likelier than its rival, compared with sft."
        )
    return (
        f"KTO: answers that people called good or bad, {settings.batch_size} a step; good ones became likelier than for "
        "sft, bad ones less likely."
    )


def _describe_kl_penalty(settings: AlignSettings) -> str:
    if isinstance(settings, Grpo) and not settings.beta:
        return "Nothing held the model to sft (beta 0)."
    return f"It was held to sft with beta {settings.beta:g}."


def describe_reward_term(term: RewardTerm) -> str:
    """Return a term of the declared reward as text, for example ``check polite``."""
    if isinstance(term, RewardModelTerm):
        return "the reward model"
    if isinstance(term, CheckTerm):
        return f"check {term.check.name}"
    if isinstance(term, RepetitionTerm):
        return f"a penalty for repeating {term.size} words"
    return f"a penalty outside {term.min_tokens} to {term.max_tokens} tokens"


def warnings(settings: AlignSettings, aligned: RlResult) -> list[str]:
    """Return one sentence per concern about the run; empty where there is none."""
    return [
        *_warn_reward_hacking(settings, aligned),
        *_longer(aligned),
        *_repeats(aligned),
        *_warn_reward_collapse(aligned.history),
        *_cut(settings, aligned),
    ]


def _select_final_point(aligned: RlResult) -> ValidationPoint:
    """Return the validation of the kept weights, or the last one where sft's were kept."""
    point = find_selected_checkpoint(aligned)
    return point if point.step else aligned.validation[-1]


def _warn_reward_hacking(settings: AlignSettings, aligned: RlResult) -> Iterator[str]:
    """Yield a warning where the metric fell significantly while the reward rose, or, without rewards, during the training on judgments."""
    first, offline = aligned.validation[0], isinstance(settings, Dpo | Kto)
    fell = (point for point in aligned.validation[1:] if point.metric_high < 0)
    result = next((point for point in fell if offline or _is_reward_higher(point, first)), None)
    if result is None:
        return
    selection_note = (
        "The weights that were kept are older than that."
        if aligned.best_step < result.step
        else "Read the answers below before you trust the weights that were kept."
    )
    moved = f"{measure_title(settings)} had moved by {format_metric_change(result)}. {selection_note}"
    if offline:
        yield f"Answers got worse by the independent measure: by step {result.step}, {moved}"
    else:
        rise = result.reward - first.reward
        yield f"Reward hacking suspected: by step {result.step} the reward had risen by {rise:.2f}, and {moved}"


def _longer(aligned: RlResult) -> Iterator[str]:
    first, point = aligned.validation[0], _select_final_point(aligned)
    if point.length >= LENGTH_RATIO * first.length and point.length >= first.length + 1:
        yield (
            f"Answers grew longer: {first.length:.1f} tokens for sft, {point.length:.1f} at step {point.step}. If length is not "
            "what people want, add a length penalty to align.rewards."
        )


def _repeats(aligned: RlResult) -> Iterator[str]:
    first, point = aligned.validation[0], _select_final_point(aligned)
    if point.repetition >= first.repetition + REPETITION_INCREASE:
        yield (
            f"Repetition grew: {100 * first.repetition:.1f} % of the runs of three words for sft, "
            f"{100 * point.repetition:.1f} % at step {point.step}."
        )


def _warn_reward_collapse(history: Sequence[StepMetrics]) -> Iterator[str]:
    spreads = [point.reward_spread for point in history if point.reward_spread is not None]
    part = max(1, len(spreads) // 5)
    if len(spreads) < 5:
        return
    early, late = (sum(some) / part for some in (spreads[:part], spreads[-part:]))
    if late < MIN_SPREAD_RATIO * early:
        yield (
            f"The spread of rewards collapsed: the answers to one input differed by {early:.2f} at first and by {late:.2f} in "
            "the end, so there was little left to compare."
        )


def _cut(settings: AlignSettings, aligned: RlResult) -> Iterator[str]:
    point = _select_final_point(aligned)
    if point.truncated >= TRUNCATED_SHARE:
        yield (
            f"{100 * point.truncated:.0f} % of the answers were cut at {settings.max_new_tokens} tokens at step {point.step}: "
            "align.max_new_tokens may be too low."
        )


def answer_histories(aligned: RlResult) -> list[AnswerHistory]:
    """Return one history per validation input, its answers ordered by step."""
    by_id: dict[str, list[Sample]] = {}
    for sample in aligned.samples:
        by_id.setdefault(sample.id, []).append(sample)
    return [
        AnswerHistory(group[0].prompt, list(group[0].references), _versions(group, aligned.best_step))
        for group in (sorted(samples, key=lambda sample: sample.step) for samples in by_id.values())
    ]


def _versions(group: Sequence[Sample], best: int) -> list[AnswerAtStep]:
    before = [None, *(sample.answer for sample in group)]
    return [
        AnswerAtStep(sample.step, sample.reward, sample.answer, sample.answer == last, sample.step == best)
        for sample, last in zip(group, before, strict=False)
    ]

"""How the tuned model learns from preferences: ``conf/align/{rloo,grpo,dpo,kto,none}.yaml``."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, RootModel, model_validator

from tunectl.config.schema.base import StrictModel
from tunectl.config.schema.evaluate import Check
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.config.schema.sft import Schedule


class BaseRewardTerm(StrictModel):
    """What all parts of the reward have: they are normalised, then clipped, then weighted, then added."""

    weight: float = Field(gt=0, le=1000)
    """Factor of this part in the reward."""
    normalize: Literal["none", "step"]
    """step: minus the mean and over the standard deviation of the answers of one step. none: as it is."""
    clip: float | None = Field(gt=0)
    """Values beyond plus or minus this are cut to it. Null: never."""


class RewardModelTerm(BaseRewardTerm):
    """The trained reward model; its values are centred and scaled by what it gave validation answers."""

    method: Literal["reward_model"]
    """Names this shape."""
    uncertainty_penalty: float = Field(ge=0, le=100)
    """Times the standard deviation over the members of an ensemble, taken off their mean (Coste et al., arXiv 2310.02743)."""


class CheckTerm(BaseRewardTerm):
    """A declared check, from 0 to 1; an answer to which it does not apply gets the mean of the others."""

    method: Literal["check"]
    """Names this shape."""
    check: Check
    """As in evaluate.checks."""


class LengthTerm(BaseRewardTerm):
    """0 for answers of declared length; falls evenly to -1 outside (DAPO's soft overlong punishment, arXiv 2503.14476)."""

    method: Literal["length"]
    """Names this shape."""
    min_tokens: int = Field(ge=0)
    """Tokens of the shortest answer that costs nothing."""
    max_tokens: int = Field(ge=1)
    """Tokens of the longest answer that costs nothing."""
    soft: int = Field(ge=1)
    """Tokens outside the range at which the whole penalty is reached."""

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens ({self.min_tokens}) is more than max_tokens ({self.max_tokens}); swap them")
        return self


class RepetitionTerm(BaseRewardTerm):
    """Minus the share of an answer's runs of words that occurred in it before."""

    method: Literal["repetition"]
    """Names this shape."""
    size: int = Field(ge=1, le=16)
    """Words of a run."""


RewardTerm = Annotated[RewardModelTerm | CheckTerm | LengthTerm | RepetitionTerm, Field(discriminator="method")]


class ScoreMeasure(StrictModel):
    """Answers against the references of validation."""

    method: Literal["score"]
    """Names this shape."""
    name: Literal["bleu", "chrf"]
    """Corpus measure of sacrebleu, 0 to 100."""


class CheckMeasure(StrictModel):
    """The share of a declared check, 0 to 100; use one that the reward does not see."""

    method: Literal["check"]
    """Names this shape."""
    check: Check
    """As in evaluate.checks."""


Measure = Annotated[ScoreMeasure | CheckMeasure, Field(discriminator="method")]


class ValidationConfig(StrictModel):
    """What is looked at while the policy learns: greedy answers to the same validation inputs each time."""

    eval_steps: int = Field(ge=1, le=100_000)
    """Steps between two looks; there is one before the first step and one after the last."""
    inputs: int = Field(ge=2, le=10_000)
    """Validation inputs, drawn with the seed."""
    metric: Measure
    """Independent of the reward: what must not fall while the reward rises."""
    tolerance: float = Field(ge=0, le=100)
    """Points that the measure may fall below where it stood before the first step."""
    confidence: float = Field(gt=0.5, lt=1)
    """Of the paired interval of that fall; it must lie beyond zero before anything is stopped."""
    resamples: int = Field(ge=100, le=100_000)
    """Of the paired bootstrap."""
    samples: int = Field(ge=0, le=100)
    """Inputs whose answers are kept at every look, for the report."""


class VllmColocate(StrictModel):
    """Answers are written by vLLM on the same card (TRL's colocate mode)."""

    gpu_memory_utilization: float = Field(gt=0, lt=1)
    """Share of the card's memory that vLLM may take."""
    tensor_parallel_size: int = Field(ge=1, le=64)
    """Cards that one copy of the model is spread over."""


class AlignBase(StrictModel):
    """How the adapter of sft is trained on; the same for every method."""

    learning_rate: float = Field(gt=0, lt=1)
    """Peak step size."""
    lr_scheduler: Schedule
    """How the step size falls after the warm-up."""
    warmup_ratio: float = Field(ge=0, lt=1)
    """Share of the steps over which the step size rises from 0."""
    weight_decay: float = Field(ge=0, lt=1)
    """Pull towards 0 of the adapter's weights, decoupled from the gradient."""
    max_grad_norm: float | None = Field(gt=0)
    """Longest gradient; longer ones are shortened to it. Null: never."""
    max_rejected_share: float = Field(ge=0, le=1)
    """Most of the inputs or judgements that may be rejected before the stage fails."""
    save_steps: int = Field(ge=1, le=100_000)
    """Steps between two states that a killed run goes on from."""
    validation: ValidationConfig
    """What is looked at meanwhile."""
    report_to: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]]
    """Trackers, each an extra of its own."""


class OnlineRl(AlignBase):
    """What rloo and grpo share: the policy writes answers, and learns from their rewards."""

    steps: int = Field(ge=1, le=1_000_000)
    """Optimiser steps."""
    prompts: Literal["train", "preferred"]
    """train: inputs of the training split. preferred: those of them that people judged answers to."""
    max_inputs: int | None = Field(ge=1)
    """Most inputs to take, drawn with the seed. Null: all."""
    prompts_per_step: int = Field(ge=1, le=4096)
    """Different inputs of one step."""
    num_generations: int = Field(ge=2, le=256)
    """Answers written to each of them; they are compared with each other."""
    max_new_tokens: int = Field(ge=1, le=8192)
    """Longest answer; a longer one is cut, is never rewarded, and teaches nothing."""
    temperature: float = Field(gt=0, le=5)
    """Divides the logits, while writing and while learning."""
    top_p: float = Field(gt=0, le=1)
    """Only the likeliest tokens that together reach this probability are drawn from. 1: all."""
    max_kl: float = Field(gt=0)
    """Nats an answer that the policy may drift from sft, mean of a step; beyond it the run stops (KL explosion)."""
    rewards: tuple[RewardTerm, ...] = Field(min_length=1)
    """Parts of the reward."""
    vllm: VllmColocate | None
    """Write answers with vLLM; needs CUDA. Null: transformers."""

    @model_validator(mode="after")
    def _apart(self) -> Self:
        names = [f"check {term.check.name}" if isinstance(term, CheckTerm) else term.method for term in self.rewards]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            mend = "give each check its own name" if twice.startswith("check ") else "give it one weight"
            raise ValueError(f"rewards names {twice} more than once; {mend}")
        return self

    @model_validator(mode="after")
    def _independent(self) -> Self:
        seen, own = (
            self.validation.metric,
            {term.check.name: term.check for term in self.rewards if isinstance(term, CheckTerm)},
        )
        for name, check in own.items():
            if isinstance(seen, CheckMeasure) and _same(check, seen.check):
                raise ValueError(
                    f"validation.metric is the check {name}, which rewards has too, so it would rise with the reward; "
                    "take another one, or {method: score, name: chrf}"
                )
        return self


def _same(one: Check, other: Check) -> bool:
    """Whether two checks are one, whatever they are called."""
    return one.model_copy(update={"name": ""}) == other.model_copy(update={"name": ""})


class Rloo(OnlineRl):
    """REINFORCE with the other answers of the same prompt as baseline (Ahmadian et al., arXiv 2402.14740)."""

    method: Literal["rloo"]
    """Fixed name of this choice."""
    beta: float = Field(ge=0, le=10)
    """Times the KL of an answer to sft (nats), taken off its reward."""
    normalize_advantages: bool
    """Divide advantages by their standard deviation over the step."""


class Grpo(OnlineRl):
    """Rewards relative to those of the same prompt's answers (Shao et al., arXiv 2402.03300)."""

    method: Literal["grpo"]
    """Fixed name of this choice."""
    beta: float = Field(ge=0, le=10)
    """Times the KL of each token to sft, added to the loss."""
    loss: Literal["grpo", "dr_grpo", "bnpo", "dapo"]
    """How tokens are averaged. grpo: within an answer. dr_grpo: over the longest possible answer. bnpo, dapo: over all tokens of the step."""
    scale_rewards: Literal["group", "batch", "none"]
    """Whose standard deviation divides advantages."""


class OfflinePreference(AlignBase):
    """What dpo and kto share: collected judgements are learned from, and nothing is written."""

    epochs: float = Field(gt=0, le=1000)
    """Passes over the judgements."""
    max_length: int = Field(ge=8, le=1_048_576)
    """Longest prompt and answer together; longer ones are rejected as ``too_long``."""
    max_new_tokens: int = Field(ge=1, le=8192)
    """Longest answer while watching."""


class Dpo(OfflinePreference):
    """Direct preference optimisation (Rafailov et al., arXiv 2305.18290)."""

    method: Literal["dpo"]
    """Fixed name of this choice."""
    beta: float = Field(gt=0, le=10)
    """How strongly the policy is held to sft; lower lets it drift further."""
    loss: Literal["sigmoid", "hinge", "ipo", "robust"]
    """How the difference of an answer's and its rival's log-ratios is judged."""
    label_smoothing: float = Field(ge=0, lt=0.5)
    """Share of the judgements taken to be wrong; robust (arXiv 2403.00409) only, the others take 0."""
    ld_alpha: float | None = Field(ge=0, le=1)
    """Weight of what an answer says beyond the length of its rival, against growing length (LD-DPO, arXiv 2409.06411). Null: 1."""
    batch_size: int = Field(ge=1, le=65_536)
    """Pairs of one optimiser step."""

    @model_validator(mode="after")
    def _smoothing_is_robust(self) -> Self:
        if self.label_smoothing and self.loss != "robust":
            raise ValueError(
                f"label_smoothing is {self.label_smoothing:g}, and loss {self.loss} has none; set it to 0, or loss to robust"
            )
        return self


class Kto(OfflinePreference):
    """Answers marked good or bad, one by one (Ethayarajh et al., arXiv 2402.01306); pairs count as one of each."""

    method: Literal["kto"]
    """Fixed name of this choice."""
    beta: float = Field(gt=0, le=10)
    """How strongly the policy is held to sft; lower lets it drift further."""
    desirable_weight: float = Field(gt=0, le=100)
    """Loss weight of good answers."""
    undesirable_weight: float = Field(gt=0, le=100)
    """Loss weight of bad answers; its share times their number should be near that of the good ones."""
    batch_size: int = Field(ge=2, le=65_536)
    """Answers of one optimiser step."""


class NoAlign(StrictModel):
    """The model of sft is the result."""

    method: Literal["none"]
    """Fixed name of this choice."""


class AlignConfig(RootModel[Annotated[Rloo | Grpo | Dpo | Kto | NoAlign, Field(discriminator="method")]]):
    """The align section of ``conf/``."""


class AlignStage(StrictModel):
    """What the align stage sees of the configuration."""

    project: str
    """Name of the project, for reports and trackers."""
    seed: int = Field(ge=0, lt=2**32)
    """Draws inputs, their order, answers and resamples."""
    hardware: HardwareProfile
    align: AlignConfig

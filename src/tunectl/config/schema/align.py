"""Preference optimization of the tuned model: ``conf/align/{rloo,grpo,dpo,kto,none}.yaml``."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, RootModel, model_validator

from tunectl.config.schema.base import StrictModel, WebAddress
from tunectl.config.schema.evaluate import Check
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.config.schema.sft import Schedule


class BaseRewardTerm(StrictModel):
    """Settings of every reward term; terms are normalized, clipped, weighted and added, in this order."""

    weight: float = Field(gt=0, le=1000)
    """Factor of this term in the reward."""
    normalize: Literal["none", "step"]
    """step: subtract the mean and divide by the standard deviation over the answers of one step. none: unchanged."""
    clip: float | None = Field(gt=0)
    """Values beyond plus or minus this become this, so that no outlier decides. Null: never."""


class RewardModelTerm(BaseRewardTerm):
    """Reward term: score of the trained reward model, centered and scaled by its scores of validation answers."""

    method: Literal["reward_model"]
    """Name of this choice."""
    uncertainty_penalty: float = Field(ge=0, le=100)
    """Factor of the ensemble's standard deviation, subtracted from its mean (Coste et al., arXiv 2310.02743); raise it where the reward is exploited."""


class CheckTerm(BaseRewardTerm):
    """Reward term: a declared check, from 0 to 1; an answer to which it does not apply gets the mean of the others."""

    method: Literal["check"]
    """Name of this choice."""
    check: Check
    """A check as in evaluate.checks."""


class LengthTerm(BaseRewardTerm):
    """Reward term: 0 within the length bounds, falling linearly to -1 outside (DAPO's soft overlong punishment, arXiv 2503.14476)."""

    method: Literal["length"]
    """Name of this choice."""
    min_tokens: int = Field(ge=0)
    """Tokens of the shortest answer without penalty."""
    max_tokens: int = Field(ge=1)
    """Tokens of the longest answer without penalty."""
    soft: int = Field(ge=1)
    """Tokens outside the bounds at which the penalty is -1."""

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens ({self.min_tokens}) is more than max_tokens ({self.max_tokens}); swap them")
        return self


class RepetitionTerm(BaseRewardTerm):
    """Reward term: minus the share of an answer's word n-grams that occurred in it before."""

    method: Literal["repetition"]
    """Name of this choice."""
    size: int = Field(ge=1, le=16)
    """Words in one n-gram."""


RewardTerm = Annotated[RewardModelTerm | CheckTerm | LengthTerm | RepetitionTerm, Field(discriminator="method")]


class ScoreMeasure(StrictModel):
    """Validation metric: BLEU or chrF of the answers against the validation references."""

    method: Literal["score"]
    """Name of this choice."""
    name: Literal["bleu", "chrf"]
    """Corpus metric of sacrebleu, 0 to 100."""


class CheckMeasure(StrictModel):
    """Validation metric: pass rate of a declared check, 0 to 100; use one that the reward does not contain."""

    method: Literal["check"]
    """Name of this choice."""
    check: Check
    """A check as in evaluate.checks."""


ValidationMetric = Annotated[ScoreMeasure | CheckMeasure, Field(discriminator="method")]


class ValidationConfig(StrictModel):
    """Validation during training: greedy answers to the same validation inputs each time."""

    eval_steps: int = Field(ge=1, le=100_000)
    """Optimizer steps between two validations; there is one before the first step and one after the last."""
    inputs: int = Field(ge=2, le=10_000)
    """Number of validation inputs, drawn with the seed; more give narrower intervals."""
    metric: ValidationMetric
    """Metric that the reward does not contain; it must not fall while the reward rises."""
    tolerance: float = Field(ge=0, le=100)
    """Points (0 to 100) that the metric may fall below its value before the first step."""
    confidence: float = Field(gt=0.5, lt=1)
    """Level of the paired interval of that fall; training stops only where the fall is beyond the tolerance and all of the interval is below zero."""
    resamples: int = Field(ge=100, le=100_000)
    """Bootstrap resamples of that interval."""
    samples: int = Field(ge=0, le=100)
    """Inputs whose answers are kept at every validation, for the report."""


class VllmColocate(StrictModel):
    """Generation with vLLM on the training GPU (TRL's colocate mode)."""

    mode: Literal["colocate"]
    """Name of this choice."""
    gpu_memory_utilization: float = Field(gt=0, lt=1)
    """Share of the GPU's memory for vLLM; lower it on out of memory."""
    tensor_parallel_size: int = Field(ge=1, le=64)
    """GPUs that one copy of the model is spread over."""


class VllmServer(StrictModel):
    """Generation by vLLM servers, which load each state of the adapter while they run."""

    mode: Literal["server"]
    """Name of this choice."""
    urls: tuple[WebAddress, ...] = Field(min_length=1, max_length=64)
    """Addresses of the servers, without ``/v1``; prompts are dealt to them in turn."""
    api_key_env: str | None = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the environment variable that holds their key (vLLM's ``--api-key``). Null: no key."""
    storage_path: str | None = Field(min_length=1)
    """Folder for adapters, which the trainer and all servers see at the same path. Null: the work folder of the stage, for servers
    on this machine."""
    timeout_seconds: float = Field(gt=0, le=86_400)
    """Longest wait for one request: all answers to a prompt, or the loading of an adapter."""

    @model_validator(mode="after")
    def _check_urls(self) -> Self:
        urls = [url.rstrip("/") for url in self.urls]
        for url in urls:
            if url.endswith("/v1"):
                raise ValueError(f"urls has {url}; leave /v1 out")
            if urls.count(url) > 1:
                raise ValueError(f"urls names {url} more than once; name each server once")
        return self


class AlignBase(StrictModel):
    """Training settings that every method has; the adapter of sft is trained further."""

    learning_rate: float = Field(gt=0, lt=1)
    """Peak learning rate; lower it if the loss rises or is not finite."""
    lr_scheduler: Schedule
    """How the learning rate changes after the warm-up: constant, or falling to 0 (linear, cosine)."""
    warmup_ratio: float = Field(ge=0, lt=1)
    """Share of the steps over which the learning rate rises from 0."""
    weight_decay: float = Field(ge=0, lt=1)
    """Decoupled L2 penalty of the adapter's weights; raise it against overfitting."""
    max_grad_norm: float | None = Field(gt=0)
    """Gradients with a larger L2 norm are scaled down to it. Null: never."""
    max_rejected_share: float = Field(ge=0, le=1)
    """Share of inputs or judgments rejected above which the stage fails."""
    save_steps: int = Field(ge=1, le=100_000)
    """Optimizer steps between checkpoints; a killed run resumes from the last one."""
    validation: ValidationConfig
    """Validation during training."""


class OnlineRl(AlignBase):
    """Settings that rloo and grpo share: the policy samples answers and is trained on their rewards."""

    steps: int = Field(ge=1, le=1_000_000)
    """Optimizer steps; raise it while the validation reward still rises."""
    prompts: Literal["train", "preferred"]
    """train: all inputs of the training split. preferred: those with judged answers."""
    max_inputs: int | None = Field(ge=1)
    """Number of inputs used at most, drawn with the seed. Null: all."""
    prompts_per_step: int = Field(ge=1, le=4096)
    """Different inputs in one step; more give a steadier gradient and slower steps."""
    num_generations: int = Field(ge=2, le=256)
    """Answers sampled for each of them and compared; more give a better baseline and take more time."""
    max_new_tokens: int = Field(ge=1, le=8192)
    """Tokens in one answer at most; a longer one is cut, and gets no reward and no gradient."""
    temperature: float = Field(gt=0, le=5)
    """Divides the logits, in sampling and in training; lower explores less."""
    top_p: float = Field(gt=0, le=1)
    """Probability mass of the likeliest tokens to sample from (nucleus sampling). 1: all tokens."""
    max_kl: float = Field(gt=0)
    """KL to sft in nats per answer, mean of a step; above it the run stops (KL explosion)."""
    rewards: tuple[RewardTerm, ...] = Field(min_length=1)
    """Terms of the reward, added up."""
    vllm: Annotated[VllmColocate | VllmServer, Field(discriminator="mode")] | None
    """Generate with vLLM: on the card of the trainer (mode colocate; needs CUDA), or by servers (mode server). Null: transformers."""

    @model_validator(mode="after")
    def _refuse_duplicates(self) -> Self:
        names = [f"check {term.check.name}" if isinstance(term, CheckTerm) else term.method for term in self.rewards]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            mend = "give each check its own name" if twice.startswith("check ") else "give it one weight"
            raise ValueError(f"rewards names {twice} more than once; {mend}")
        return self

    @model_validator(mode="after")
    def _check_independence(self) -> Self:
        used, own = (
            self.validation.metric,
            {term.check.name: term.check for term in self.rewards if isinstance(term, CheckTerm)},
        )
        for name, check in own.items():
            if isinstance(used, CheckMeasure) and _same(check, used.check):
                raise ValueError(
                    f"validation.metric is the check {name}, which rewards has too, so it would rise with the reward; "
                    "take another one, or {method: score, name: chrf}"
                )
        return self


def _same(check: Check, other: Check) -> bool:
    """Return whether two checks are equal, whatever their names."""
    return check.model_copy(update={"name": ""}) == other.model_copy(update={"name": ""})


class Rloo(OnlineRl):
    """Method rloo: REINFORCE with the other answers of the same prompt as baseline (Ahmadian et al., arXiv 2402.14740)."""

    method: Literal["rloo"]
    """Name of this choice."""
    beta: float = Field(ge=0, le=10)
    """Factor of an answer's KL to sft (nats), subtracted from its reward; raise it if the wording drifts."""
    normalize_advantages: bool
    """Divide advantages by their standard deviation over the step, so that rewards of any scale take equal steps."""


class Grpo(OnlineRl):
    """Method grpo: rewards relative to those of the same prompt's answers (Shao et al., arXiv 2402.03300)."""

    method: Literal["grpo"]
    """Name of this choice."""
    beta: float = Field(ge=0, le=10)
    """Factor of each token's KL to sft, added to the loss; raise it if the wording drifts."""
    loss: Literal["grpo", "dr_grpo", "bnpo", "dapo"]
    """How tokens are averaged. grpo: within an answer. dr_grpo: over the longest possible answer. bnpo, dapo: over all tokens of the step."""
    scale_rewards: Literal["group", "batch", "none"]
    """Standard deviation that divides advantages. group: of the answers to one prompt, which gives prompts with nearly equal rewards more weight.
    batch: of the whole step. none: not divided."""


class OfflinePreference(AlignBase):
    """Settings that dpo and kto share: training on collected judgments, without sampling."""

    epochs: float = Field(gt=0, le=1000)
    """Passes over the judgments."""
    max_length: int = Field(ge=8, le=1_048_576)
    """Tokens of prompt and answer at most; longer ones are rejected as ``too_long``."""
    max_new_tokens: int = Field(ge=1, le=8192)
    """Tokens in one validation answer at most."""


class Dpo(OfflinePreference):
    """Method dpo: direct preference optimization (Rafailov et al., arXiv 2305.18290)."""

    method: Literal["dpo"]
    """Name of this choice."""
    beta: float = Field(gt=0, le=10)
    """Strength of the tie to sft; lower lets the policy drift further."""
    loss: Literal["sigmoid", "hinge", "ipo", "robust"]
    """Loss of the difference between the log-ratios of the better and the worse answer. sigmoid: DPO's own. hinge: no gradient beyond a margin.
    ipo: for pairs on which all judges agree. robust: for pairs that are partly mislabeled."""
    label_smoothing: float = Field(ge=0, lt=0.5)
    """Share of judgments assumed to be wrong; above 0 only with loss robust (arXiv 2403.00409)."""
    ld_alpha: float | None = Field(ge=0, le=1)
    """Weight of the tokens beyond the rival's length; lower it if answers grow longer (LD-DPO, arXiv 2409.06411). Null: 1."""
    batch_size: int = Field(ge=1, le=65_536)
    """Pairs in one optimizer step."""

    @model_validator(mode="after")
    def _check_smoothing(self) -> Self:
        if self.label_smoothing and self.loss != "robust":
            raise ValueError(
                f"label_smoothing is {self.label_smoothing:g}, and loss {self.loss} has none; set it to 0, or loss to robust"
            )
        return self


class Kto(OfflinePreference):
    """Method kto: Kahneman-Tversky optimization on single good or bad answers (Ethayarajh et al., arXiv 2402.01306); a pair is one of each."""

    method: Literal["kto"]
    """Name of this choice."""
    beta: float = Field(gt=0, le=10)
    """Strength of the tie to sft; lower lets the policy drift further."""
    desirable_weight: float = Field(gt=0, le=100)
    """Loss weight of good answers; raise it where they are few."""
    undesirable_weight: float = Field(gt=0, le=100)
    """Loss weight of bad answers; lower it where they are many, so that weight times number is near that of the good ones."""
    batch_size: int = Field(ge=2, le=65_536)
    """Answers in one optimizer step."""


class NoAlign(StrictModel):
    """Switches alignment off: the model of sft is the result."""

    method: Literal["none"]
    """Name of this choice."""


class AlignConfig(RootModel[Annotated[Rloo | Grpo | Dpo | Kto | NoAlign, Field(discriminator="method")]]):
    """The section ``align``: preference optimization of the tuned model, or none."""


class AlignStage(StrictModel):
    """Sections of the configuration that the stage align reads, from ``artifacts/config/align.json``."""

    project: str
    """Name of the project, for reports and trackers."""
    seed: int = Field(ge=0, lt=2**32)
    """Seed of the inputs, their order, answers and resamples."""
    hardware: HardwareProfile
    align: AlignConfig

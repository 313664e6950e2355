"""The reward section: a model of what people prefer, or none."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, RootModel, model_validator

from tunectl.config.schema.base import StrictModel
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.config.schema.sft import EarlyStopping, Schedule


class NoReward(StrictModel):
    """Switches the reward model off; evaluate then has no win rate by it."""

    method: Literal["none"]
    """Name of this choice."""


class HeldOutRewardModel(StrictModel):
    """Second reward model that only ``evaluate`` uses, so that the policy is not scored by the model it was trained with."""

    share: float = Field(gt=0, le=0.5)
    """Share of the training prompts that it alone is trained on; the ensemble gets the others."""
    seed_offset: int = Field(ge=1, le=1_000_000)
    """Added to the seed of the last ensemble model."""


class MaxPairs(StrictModel):
    """Limits on the pairs of each split, for large data sets; whole prompts are drawn with the seed. Null: all."""

    train: int | None = Field(ge=1)
    """Pairs to train on, with those of the evaluation model."""
    validation: int | None = Field(ge=1)
    """Pairs by which the best weights are chosen."""
    test: int | None = Field(ge=1)
    """Pairs that the gate is measured on."""


class RewardGate(StrictModel):
    """Conditions under which a reward model is good enough for align."""

    confidence: float = Field(gt=0.5, lt=1)
    """Level of all intervals; higher asks for more evidence."""
    resamples: int = Field(ge=100, le=100_000)
    """Bootstrap resamples of the prompts."""
    bins: int = Field(ge=2, le=50)
    """Bins of confidence, from 0.5 to 1, of the calibration error and its plot."""


class RewardModelConfig(StrictModel):
    """Reward model: LoRA on the tuned model with one output, trained on pairs with the Bradley-Terry loss."""

    method: Literal["lora", "dora", "rslora"]
    """lora (arXiv 2106.09685), dora (2402.09353) or rslora (2312.03732)."""
    lora_rank: int = Field(ge=1, le=1024)
    """Rank of the update; higher fits more, takes more memory and overfits sooner."""
    lora_alpha: float = Field(gt=0, le=4096)
    """Scales the update by alpha / rank (rslora: alpha / square root of rank)."""
    lora_dropout: float = Field(ge=0, lt=1)
    """Share of the adapter's input dropped in training; raise it against overfitting."""
    target_modules: Literal["all-linear"] | list[str]
    """Layers that get an adapter: all linear ones but the output layer, or the last parts of their names, such as q_proj."""

    epochs: float = Field(gt=0, le=1000)
    """Passes over the training pairs. One is usual: reward models overfit early."""
    batch_size: int = Field(ge=1, le=65_536)
    """Pairs in one optimizer step; hardware.train_batch_tokens bounds the memory."""
    optimizer: Literal["adamw", "adamw_8bit", "adafactor", "lion", "sgd"]
    """Optimizer; adamw_8bit and lion need the extra gpu (bitsandbytes)."""
    learning_rate: float = Field(gt=0, lt=1)
    """Peak learning rate; lower it if the loss rises or is not finite."""
    lr_scheduler: Schedule
    """How the learning rate changes after the warm-up: constant, or falling to 0 (linear, cosine)."""
    warmup_ratio: float = Field(ge=0, lt=1)
    """Share of the steps over which the learning rate rises from 0."""
    weight_decay: float = Field(ge=0, lt=1)
    """Decoupled L2 penalty of the update's weights; raise it against overfitting."""
    max_grad_norm: float | None = Field(gt=0)
    """Gradients with a larger L2 norm are scaled down to it. Null: never."""
    margins: bool
    """The better answer must win by the pair's margin, where the data has one (arXiv 2307.09288, section 3.2.2)."""
    center_rewards_coefficient: float | None = Field(gt=0, le=10)
    """Weight of the squared sum of both rewards, which keeps them near 0 (arXiv 2312.09244); 0.01 is usual. Null: none."""

    max_pairs: MaxPairs
    """Limits on the pairs of each split."""
    prefix_sharing: bool
    """Read what answers of one prompt share once for all of them: the same gradients with fewer tokens. Left alone where the
    model's attention does not allow it."""
    max_length: int = Field(ge=8, le=1_048_576)
    """Tokens of prompt and answer at most; a pair with a longer one is rejected as ``too_long``, never cut."""
    max_rejected_share: float = Field(ge=0, le=1)
    """Share of pairs rejected above which the stage fails."""

    evals_per_epoch: int = Field(ge=1, le=1000)
    """Validations in one epoch, of which the best weights are kept; more: finer choice, more time."""
    early_stopping: EarlyStopping | None
    """When training stops early. Null: never. The weights of the best validation are kept in both cases."""
    save_steps: int = Field(ge=1)
    """Optimizer steps between checkpoints; a killed run resumes from the last one."""

    ensemble_size: int = Field(ge=1, le=16)
    """Reward models with different seeds: the score is their mean, its uncertainty their spread (arXiv 2310.02743)."""
    evaluation_model: HeldOutRewardModel | None
    """Reward model of evaluate, for win rates. Null: none."""
    gate: RewardGate
    """Measurements on test pairs that decide whether align may use it."""

    @model_validator(mode="after")
    def _require_targets(self) -> Self:
        if not self.target_modules:
            raise ValueError("target_modules is an empty list; name at least one layer, or all-linear")
        return self


class Reward(RootModel[Annotated[NoReward | RewardModelConfig, Field(discriminator="method")]]):
    """The section ``reward``: a reward model, or none."""


class RewardStage(StrictModel):
    """Sections of the configuration that the stage reward reads, from ``artifacts/config/reward.json``."""

    reward: Reward
    """The section of this stage."""
    seed: int = Field(ge=0, lt=2**32)
    """Seed of the first weights, the order of the pairs, the evaluation model's part and the intervals."""
    hardware: HardwareProfile
    """The machine."""
    project: str
    """Name of the run in reports and trackers."""

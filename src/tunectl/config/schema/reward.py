"""The reward section: a model of what people prefer, or none."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, RootModel, model_validator

from tunectl.config.schema.base import StrictModel
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.config.schema.sft import EarlyStopping, Schedule


class NoReward(StrictModel):
    """No reward model."""

    method: Literal["none"]
    """Fixed name of this choice."""


class HeldOutRewardModel(StrictModel):
    """A second reward model that only ``evaluate`` reads, so that nothing is judged by what it learned from."""

    share: float = Field(gt=0, le=0.5)
    """Share of the training prompts that it alone is trained on; the members get the others."""
    seed_offset: int = Field(ge=1, le=1_000_000)
    """Its seed is that of the last member plus this."""


class MaxPairs(StrictModel):
    """Most pairs of each part, for large collections; whole prompts are drawn with the seed. Null: all."""

    train: int | None = Field(ge=1)
    """Learned from, the judge's with them."""
    validation: int | None = Field(ge=1)
    """Choose the weights."""
    test: int | None = Field(ge=1)
    """Judge them."""


class RewardGate(StrictModel):
    """When a reward model knows enough to be learned from."""

    confidence: float = Field(gt=0.5, lt=1)
    """Coverage of all intervals."""
    resamples: int = Field(ge=100, le=100_000)
    """Bootstrap resamples of the prompts."""
    bins: int = Field(ge=2, le=50)
    """Bins of confidence, from 0.5 to 1, of the calibration error and its plot."""


class RewardModelConfig(StrictModel):
    """A low-rank update of the tuned model with one output, the reward; learned from pairs by Bradley and Terry's model."""

    method: Literal["lora", "dora", "rslora"]
    """lora (arXiv 2106.09685), dora (2402.09353) or rslora (2312.03732)."""
    lora_rank: int = Field(ge=1, le=1024)
    """Rank of the update."""
    lora_alpha: float = Field(gt=0, le=4096)
    """The update is scaled by alpha / rank (rslora: alpha / square root of rank)."""
    lora_dropout: float = Field(ge=0, lt=1)
    """Share of the adapter's input that is dropped while training."""
    target_modules: Literal["all-linear"] | list[str]
    """Layers that get an adapter: all linear ones but the output layer, or the last parts of their names, such as q_proj."""

    epochs: float = Field(gt=0, le=1000)
    """Passes over the training pairs. One is usual: reward models overfit early."""
    batch_size: int = Field(ge=1, le=65_536)
    """Pairs of one optimiser step; memory is bounded by hardware.train_batch_tokens, not by this."""
    optimizer: Literal["adamw", "adamw_8bit", "adafactor", "lion", "sgd"]
    """adamw_8bit and lion need the extra gpu (bitsandbytes)."""
    learning_rate: float = Field(gt=0, lt=1)
    """Peak step size."""
    lr_scheduler: Schedule
    """How the step size falls after the warm-up."""
    warmup_ratio: float = Field(ge=0, lt=1)
    """Share of the steps over which the step size rises from 0."""
    weight_decay: float = Field(ge=0, lt=1)
    """Pull towards 0 of the update's weights, decoupled from the gradient."""
    max_grad_norm: float | None = Field(gt=0)
    """Longest gradient; longer ones are shortened to it. Null: never."""
    margins: bool
    """Ask the better answer to be better by the pair's margin, where the data gives one (arXiv 2307.09288, section 3.2.2)."""
    center_rewards_coefficient: float | None = Field(gt=0, le=10)
    """Weight of the squared sum of both rewards, which keeps them around 0 (arXiv 2312.09244); 0.01 is usual. Null: none."""

    max_pairs: MaxPairs
    """How many pairs are used."""
    prefix_sharing: bool
    """Read what answers of one prompt share once for all of them: the same gradients with fewer tokens. Left alone where the
    model's attention does not allow it."""
    max_length: int = Field(ge=8, le=1_048_576)
    """Most tokens of prompt and one answer; a pair with a longer answer is rejected as ``too_long``, never cut."""
    max_rejected_share: float = Field(ge=0, le=1)
    """Most of the pairs that this stage may reject before it fails."""

    evals_per_epoch: int = Field(ge=1, le=1000)
    """Validations an epoch."""
    early_stopping: EarlyStopping | None
    """Null: train all epochs. In both cases the weights of the best validation are kept."""
    save_steps: int = Field(ge=1)
    """Steps between checkpoints; a killed run goes on from the last one."""
    report_to: list[Literal["tensorboard", "mlflow", "wandb"]]
    """Where the curves are sent besides history.csv."""

    ensemble_size: int = Field(ge=1, le=16)
    """Reward models with different seeds: the score is their mean, its uncertainty their spread (arXiv 2310.02743)."""
    evaluation_model: HeldOutRewardModel | None
    """Null: evaluate has no reward model of its own to judge with."""
    gate: RewardGate
    """What is measured on held-out pairs, and how."""

    @model_validator(mode="after")
    def _targets_named(self) -> Self:
        if not self.target_modules:
            raise ValueError("target_modules is an empty list; name at least one layer, or all-linear")
        return self


class Reward(RootModel[Annotated[NoReward | RewardModelConfig, Field(discriminator="method")]]):
    """The reward section of ``conf/``."""


class RewardStage(StrictModel):
    """What the reward stage sees of the configuration."""

    reward: Reward
    """Its section."""
    seed: int = Field(ge=0, lt=2**32)
    """Seeds the first weights, the order of the pairs, the judge's part and the intervals."""
    hardware: HardwareProfile
    """The machine."""
    project: str
    """Name of the run in reports and trackers."""

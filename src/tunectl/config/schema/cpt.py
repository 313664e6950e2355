"""The cpt section: further pre-training on the domain's raw text, or none."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, RootModel

from tunectl.config.schema.base import StrictModel
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.config.schema.sft import Schedule


class CptDisabled(StrictModel):
    """No further pre-training: sft starts from the base model."""

    method: Literal["none"]
    """Fixed name of this choice."""


class LoraCpt(StrictModel):
    """LoRA on the documents of the training side, then merged into the weights (arXiv 2004.10964: don't stop pre-training)."""

    method: Literal["lora"]
    """Fixed name of this choice."""
    lora_rank: int = Field(ge=1, le=1024)
    """Rank of the update."""
    lora_alpha: float = Field(gt=0, le=4096)
    """The update is scaled by alpha / rank."""
    block_size: int = Field(ge=32, le=32_768)
    """Tokens of one block of packed text."""
    epochs: float = Field(gt=0, le=100)
    """Passes over the text."""
    batch_size: int = Field(ge=1, le=4096)
    """Blocks of one optimiser step."""
    validation_share: float = Field(gt=0, lt=0.5)
    """Share of the documents that is held back to measure the loss."""
    min_tokens: int = Field(ge=1)
    """Fewest tokens of text worth training on; less is an error."""
    learning_rate: float = Field(gt=0, lt=1)
    """Peak step size."""
    lr_scheduler: Schedule
    """How the step size falls."""
    warmup_ratio: float = Field(ge=0, lt=1)
    """Share of the steps over which the step size rises from 0."""
    weight_decay: float = Field(ge=0, lt=1)
    """Pull towards 0 of the update's weights."""
    max_grad_norm: float | None = Field(gt=0)
    """Longest gradient. Null: never shortened."""
    save_steps: int = Field(ge=1)
    """Steps between checkpoints; a killed run goes on from the last one."""


class ContinuedPretraining(RootModel[Annotated[CptDisabled | LoraCpt, Field(discriminator="method")]]):
    """The cpt section of ``conf/``."""


class CptStage(StrictModel):
    """What the cpt stage sees of the configuration."""

    cpt: ContinuedPretraining
    """Its section."""
    seed: int = Field(ge=0, lt=2**32)
    """Seeds the update's first weights and the order of the text."""
    hardware: HardwareProfile
    """The machine."""

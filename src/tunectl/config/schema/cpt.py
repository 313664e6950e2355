"""The cpt section: continued pretraining on the domain's raw text, or none."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, RootModel

from tunectl.config.schema.base import StrictModel
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.config.schema.sft import Schedule


class CptDisabled(StrictModel):
    """No continued pretraining: sft starts from the base model."""

    method: Literal["none"]
    """Name of this choice."""


class LoraCpt(StrictModel):
    """LoRA on the documents of the training split, merged into the weights (arXiv 2004.10964: don't stop pretraining)."""

    method: Literal["lora"]
    """Name of this choice."""
    lora_rank: int = Field(ge=1, le=1024)
    """Rank of the update; higher fits more, takes more memory and overfits sooner."""
    lora_alpha: float = Field(gt=0, le=4096)
    """Scales the update by alpha / rank."""
    block_size: int = Field(ge=32, le=32_768)
    """Tokens in one block of packed text; more give longer context and take more memory."""
    epochs: float = Field(gt=0, le=100)
    """Passes over the text; more than a few overfit."""
    batch_size: int = Field(ge=1, le=4096)
    """Blocks in one optimizer step; hardware.train_batch_tokens bounds the memory."""
    validation_share: float = Field(gt=0, lt=0.5)
    """Share of the documents held out to measure the loss."""
    min_tokens: int = Field(ge=1)
    """Tokens of text below which the stage fails: too little to train on."""
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
    save_steps: int = Field(ge=1)
    """Optimizer steps between checkpoints; a killed run resumes from the last one."""


class ContinuedPretraining(RootModel[Annotated[CptDisabled | LoraCpt, Field(discriminator="method")]]):
    """The section ``cpt``: continued pretraining on raw text, or none."""


class CptStage(StrictModel):
    """Sections of the configuration that the stage cpt reads, from ``artifacts/config/cpt.json``."""

    cpt: ContinuedPretraining
    """The section of this stage."""
    seed: int = Field(ge=0, lt=2**32)
    """Seed of the update's first weights and of the order of the text."""
    hardware: HardwareProfile
    """The machine."""

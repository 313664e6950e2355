"""The sft section: supervised fine-tuning of a low-rank adapter."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tunectl.config.schema.base import StrictModel
from tunectl.config.schema.hardware import HardwareProfile

Schedule = Literal["constant", "linear", "cosine"]


class EarlyStopping(StrictModel):
    """Stop when the validation loss no longer falls."""

    patience: int = Field(ge=1, le=1000)
    """Validations in a row without a better loss before training stops."""
    min_delta: float = Field(ge=0, lt=10)
    """Fall of the loss (nats a token) that counts as better."""


class Sft(StrictModel):
    """The sft section of ``conf/``."""

    method: Literal["lora", "dora", "rslora", "qlora"]
    """lora (arXiv 2106.09685), dora (2402.09353), rslora (2312.03732), or qlora (2305.14314: 4-bit base, needs CUDA)."""
    lora_rank: int = Field(ge=1, le=1024)
    """Rank of the update."""
    lora_alpha: float = Field(gt=0, le=4096)
    """The update is scaled by alpha / rank (rslora: alpha / square root of rank)."""
    lora_dropout: float = Field(ge=0, lt=1)
    """Share of the adapter's input that is dropped while training."""
    target_modules: Literal["all-linear"] | list[str]
    """Layers that get an adapter: all linear ones but the output layer, or the last parts of their names, such as q_proj."""
    init_adapter: str | None = Field(min_length=1)
    """Folder of an adapter to go on from, for example the champion's (`retrain.train.start`): what it knows stays, and fewer steps do.
    Null: new weights."""

    epochs: float = Field(gt=0, le=1000)
    """Passes over the training answers."""
    batch_size: int = Field(ge=1, le=65_536)
    """Answers of one optimiser step; memory is bounded by hardware.train_batch_tokens, not by this."""
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
    label_smoothing: float = Field(ge=0, lt=1)
    """Share of the target spread evenly over the vocabulary."""
    neftune_noise_alpha: float | None = Field(gt=0, le=100)
    """Noise on the input embeddings (arXiv 2310.05914), 5 is usual. Null: none."""
    ema_decay: float | None = Field(gt=0, lt=1)
    """Decay a step of a moving average of the adapter's weights; the average is validated and kept. Null: the last weights."""

    loss_on: Literal["final_answer", "assistant"]
    """answer: the final answer only. assistant: every assistant turn. A message's own ``train`` flag comes first."""
    system: str | None
    """System text of conversations that bring none, in training and afterwards. Null: as model.system says."""
    prefix_sharing: bool
    """Read a prompt once for all its answers: the same gradients with fewer tokens. Left alone where the model's attention
    does not allow it."""
    max_length: int = Field(ge=8, le=1_048_576)
    """Most tokens of prompt and one answer; a longer answer is rejected as ``too_long``, never cut."""
    max_rejected_share: float = Field(ge=0, le=1)
    """Most of the answers that this stage may reject before it fails."""

    evals_per_epoch: int = Field(ge=1, le=1000)
    """Validations an epoch."""
    early_stopping: EarlyStopping | None
    """Null: train all epochs. In both cases the weights of the best validation are kept."""
    save_steps: int = Field(ge=1)
    """Steps between checkpoints; a killed run goes on from the last one."""
    report_to: list[Literal["tensorboard", "mlflow", "wandb"]]
    """Where the curves are sent besides history.csv."""

    @model_validator(mode="after")
    def _targets_named(self) -> Self:
        if not self.target_modules:
            raise ValueError("target_modules is an empty list; name at least one layer, or all-linear")
        return self


class SftStage(StrictModel):
    """What the sft stage sees of the configuration."""

    sft: Sft
    """Its section."""
    seed: int = Field(ge=0, lt=2**32)
    """Seeds the adapter's first weights, dropout and the order of the examples."""
    hardware: HardwareProfile
    """The machine."""
    project: str
    """Name of the run in trackers."""

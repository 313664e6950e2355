"""The sft section: supervised fine-tuning of a low-rank adapter."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tunectl.config.schema.base import StrictModel
from tunectl.config.schema.hardware import HardwareProfile

Schedule = Literal["constant", "linear", "cosine"]


class EarlyStopping(StrictModel):
    """End of sft before its last epoch, where the validation loss no longer falls."""

    patience: int = Field(ge=1, le=1000)
    """Validations in a row without improvement before training stops."""
    min_delta: float = Field(ge=0, lt=10)
    """Fall of the loss (nats per token) that counts as improvement."""


class Privacy(StrictModel):
    """Differentially private training (DP-SGD, arXiv 1607.00133) by Opacus: the adapter does not reveal whether a unit was in the data.

    A unit is a person or a source with all of its rows. Each step samples every unit with the same probability, clips the gradient of
    each unit as a whole, and adds noise to their sum.
    """

    unit: Literal["person", "source"]
    """Who is protected. person: all rows with one value of `person_field`. source: all rows of one file, address or inference."""
    person_field: str | None = Field(min_length=1)
    """Declared field (`ingest.sources.<name>.fields`) whose values name people. Null with unit source."""
    min_units: int = Field(ge=2)
    """Units below which training is refused: with few units the noise hides what they have in common."""
    target_epsilon: float | None = Field(gt=0, le=1000)
    """Epsilon that the whole training stays below; the noise follows from it. Null: noise_multiplier sets the noise."""
    target_delta: float | None = Field(gt=0, lt=1)
    """Delta of that epsilon; must be below 1 / units. Null: a tenth of 1 / units."""
    noise_multiplier: float | None = Field(ge=0, le=1e6)
    """Standard deviation of the noise in multiples of max_grad_norm. Null: as target_epsilon needs it. 0: no noise, and no privacy."""
    max_grad_norm: float = Field(gt=0)
    """L2 norm to which the gradient of each unit is clipped. Lower: less noise, and less of each unit is learned."""
    expected_batch_size: float = Field(gt=0)
    """Units in one optimizer step, on average. More: less noise for each, and more time."""
    accountant: Literal["prv", "rdp"]
    """How Opacus adds up epsilon over the steps: prv is tighter, rdp an older upper bound."""
    noise_key_file: str = Field(min_length=1)
    """File of the secret from which noise and sampling are derived, with the settings and rows of the training; made at first use. Whoever has it can compute the noise and subtract it."""
    noise_key_env: str = Field(min_length=1)
    """Environment variable whose value is used instead of that file."""

    @model_validator(mode="after")
    def _check_noise_and_unit(self) -> Self:
        if (self.target_epsilon is None) == (self.noise_multiplier is None):
            raise ValueError("give target_epsilon or noise_multiplier, and null for the other")
        if (self.unit == "person") == (self.person_field is None):
            raise ValueError(
                "unit person needs person_field, the field that names people; unit source needs person_field: null"
            )
        return self


class Sft(StrictModel):
    """The section ``sft``: supervised fine-tuning of a LoRA adapter."""

    method: Literal["lora", "dora", "rslora", "qlora"]
    """lora (arXiv 2106.09685), dora (2402.09353), rslora (2312.03732), or qlora (2305.14314: 4-bit base, needs CUDA)."""
    lora_rank: int = Field(ge=1, le=1024)
    """Rank of the update; higher fits more, takes more memory and overfits sooner."""
    lora_alpha: float = Field(gt=0, le=4096)
    """Scales the update by alpha / rank (rslora: alpha / square root of rank)."""
    lora_dropout: float = Field(ge=0, lt=1)
    """Share of the adapter's input dropped in training; raise it against overfitting."""
    target_modules: Literal["all-linear"] | list[str]
    """Layers that get an adapter: all linear ones but the output layer, or the last parts of their names, such as q_proj."""
    init_adapter: str | None = Field(min_length=1)
    """Folder of an adapter to start from, for example the champion's (`retrain.train.start`): it keeps what it has learned, and needs fewer steps.
    Null: new weights."""

    adapter: str | None = Field(min_length=1)
    """Folder of a finished adapter, such as that of `tunectl federate`, which is used in place of a training. Null: train one."""

    epochs: float = Field(gt=0, le=1000)
    """Passes over the training answers; fewer if the validation loss rises."""
    batch_size: int = Field(ge=1, le=65_536)
    """Answers in one optimizer step; hardware.train_batch_tokens bounds the memory."""
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
    label_smoothing: float = Field(ge=0, lt=1)
    """Share of the target spread evenly over the vocabulary; 0.1 suits beam search."""
    neftune_noise_alpha: float | None = Field(gt=0, le=100)
    """Noise on the input embeddings against overfitting (arXiv 2310.05914); 5 is usual. Null: none."""
    ema_decay: float | None = Field(gt=0, lt=1)
    """Decay per step of a moving average of the adapter's weights (0.98: about 50 steps); the average is validated and kept. Null: no average."""

    loss_on: Literal["final_answer", "assistant"]
    """final_answer: the last assistant turn only. assistant: every assistant turn. A message's own ``train`` flag wins."""
    system: str | None
    """System prompt of conversations without one, in training and afterwards. Null: model.system."""
    prefix_sharing: bool
    """Read a prompt once for all its answers: the same gradients with fewer tokens. Left alone where the model's attention
    does not allow it."""
    max_length: int = Field(ge=8, le=1_048_576)
    """Tokens of prompt and answer at most; a longer answer is rejected as ``too_long``, where TRL truncates it."""
    max_rejected_share: float = Field(ge=0, le=1)
    """Share of answers rejected above which the stage fails."""

    evals_per_epoch: int = Field(ge=1, le=1000)
    """Validations in one epoch, of which the best weights are kept; more: finer choice, more time."""
    max_eval_samples: int | None = Field(ge=1)
    """Validation inputs that the loss is measured on, with all their answers, drawn with the seed. Null: all."""
    early_stopping: EarlyStopping | None
    """When training stops early. Null: never. The weights of the best validation are kept in both cases."""
    save_steps: int = Field(ge=1)
    """Optimizer steps between checkpoints; a killed run resumes from the last one."""
    privacy: Privacy | None
    """Differential privacy of the training rows. Null: none. With it the last weights are kept, not those of the best validation."""

    @model_validator(mode="after")
    def _refuse_with_privacy(self) -> Self:
        reasons = {
            "early_stopping": "the last weights are kept",
            "init_adapter": "epsilon does not count what it has learned",
            "adapter": "epsilon does not count what it has learned",
            "max_grad_norm": "privacy.max_grad_norm clips the gradient of each unit",
        }
        for name, reason in reasons.items():
            if self.privacy is not None and getattr(self, name) is not None:
                raise ValueError(f"{name} must be null with privacy: {reason}; sft=private has settings that fit")
        return self

    @model_validator(mode="after")
    def _require_targets(self) -> Self:
        if not self.target_modules:
            raise ValueError("target_modules is an empty list; name at least one layer, or all-linear")
        return self


class SftStage(StrictModel):
    """Sections of the configuration that the stage sft reads, from ``artifacts/config/sft.json``."""

    sft: Sft
    """The section of this stage."""
    seed: int = Field(ge=0, lt=2**32)
    """Seed of the adapter's first weights, dropout and the order of the examples."""
    hardware: HardwareProfile
    """The machine."""
    project: str
    """Name of the run in trackers."""

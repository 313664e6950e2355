"""What a trainer is told: everything that shapes a fit, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunectl.config.schema.cpt import LoraCpt
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.config.schema.sft import Schedule, Sft

USUAL_GRAD_NORM = 1.0
"""Clips the gradients of diverging runs without slowing those that converge."""


@dataclass(frozen=True, slots=True)
class LoraArgs:
    """The low-rank update; see ``config.sft.Sft`` for each value."""

    method: str
    rank: int
    alpha: float
    dropout: float
    targets: str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrainingArgs:
    """How to fit an adapter; see ``config.sft.Sft`` for each value."""

    label: str
    """What the progress bar says."""
    adapter: LoraArgs
    epochs: float
    batch_answers: int
    optimizer: str
    learning_rate: float
    schedule: Schedule
    warmup: float
    weight_decay: float
    clip: float | None
    label_smoothing: float
    neftune: float | None
    average: float | None
    share_prompts: bool
    validations: int
    patience: int | None
    least_gain: float
    checkpoint_steps: int
    report_to: tuple[str, ...]
    seed: int
    profile: HardwareProfile
    project: str
    """Name of the run in trackers."""
    start: Path | None = None
    """Folder of the adapter to go on from."""

    @property
    def four_bit(self) -> bool:
        """Whether the base model is held in 4 bits."""
        return self.adapter.method == "qlora"


def from_sft_config(section: Sft, *, seed: int, profile: HardwareProfile, project: str) -> TrainingArgs:
    """The plan of the sft stage."""
    targets = section.target_modules if isinstance(section.target_modules, str) else tuple(section.target_modules)
    stop = section.early_stopping
    return TrainingArgs(
        label="sft",
        adapter=LoraArgs(section.method, section.lora_rank, section.lora_alpha, section.lora_dropout, targets),
        epochs=section.epochs,
        batch_answers=section.batch_size,
        optimizer=section.optimizer,
        learning_rate=section.learning_rate,
        schedule=section.lr_scheduler,
        warmup=section.warmup_ratio,
        weight_decay=section.weight_decay,
        clip=section.max_grad_norm,
        label_smoothing=section.label_smoothing,
        neftune=section.neftune_noise_alpha,
        average=section.ema_decay,
        share_prompts=section.prefix_sharing,
        validations=section.evals_per_epoch,
        patience=stop.patience if stop else None,
        least_gain=stop.min_delta if stop else 0.0,
        checkpoint_steps=section.save_steps,
        report_to=tuple(section.report_to),
        seed=seed,
        profile=profile,
        project=project,
        start=Path(section.init_adapter) if section.init_adapter else None,
    )


def from_cpt_config(section: LoraCpt, *, seed: int, profile: HardwareProfile) -> TrainingArgs:
    """The plan of the cpt stage: blocks of text count as answers."""
    return TrainingArgs(
        label="cpt",
        adapter=LoraArgs("lora", section.lora_rank, section.lora_alpha, 0.0, "all-linear"),
        epochs=section.epochs,
        batch_answers=section.batch_size,
        optimizer="adamw",
        learning_rate=section.learning_rate,
        schedule=section.lr_scheduler,
        warmup=section.warmup_ratio,
        weight_decay=section.weight_decay,
        clip=section.max_grad_norm,
        label_smoothing=0.0,
        neftune=None,
        average=None,
        share_prompts=False,
        validations=2,
        patience=None,
        least_gain=0.0,
        checkpoint_steps=section.save_steps,
        report_to=(),
        seed=seed,
        profile=profile,
        project="cpt",
    )


def suggest_for_lost_loss(section: str, learning_rate: float, max_grad_norm: float | None) -> str:
    """Say which settings of ``section`` to change where a loss or score is not finite; never to the value that they have."""
    if max_grad_norm is None or max_grad_norm > USUAL_GRAD_NORM:
        clip = f"set {section}.max_grad_norm={USUAL_GRAD_NORM}"
    else:
        clip = f"{section}.max_grad_norm (now {max_grad_norm:g})"
    return f"lower {section}.learning_rate (now {learning_rate:g}), or {clip}"

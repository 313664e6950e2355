"""Arguments of a trainer: everything that affects a training, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunectl.config.schema.cpt import LoraCpt
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.config.schema.sft import Privacy, Schedule, Sft

USUAL_GRAD_NORM = 1.0
"""Clips the gradients of diverging runs without slowing those that converge."""
SEEDS = 2**32
"""Number of seeds; numpy takes none above them."""


@dataclass(frozen=True, slots=True)
class LoraArgs:
    """Arguments of the LoRA adapter; see ``config.schema.sft.Sft`` for each value."""

    method: str
    lora_rank: int
    lora_alpha: float
    lora_dropout: float
    target_modules: str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrainingArgs:
    """Arguments of the training of an adapter; see ``config.schema.sft.Sft`` for each value."""

    label: str
    """Label of the progress bar."""
    adapter: LoraArgs
    epochs: float
    batch_size: int
    optimizer: str
    learning_rate: float
    lr_scheduler: Schedule
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float | None
    label_smoothing: float
    neftune_noise_alpha: float | None
    ema_decay: float | None
    prefix_sharing: bool
    evals_per_epoch: int
    patience: int | None
    min_delta: float
    save_steps: int
    seed: int
    profile: HardwareProfile
    project: str
    """Name of the run in trackers."""
    init_adapter: Path | None = None
    """Folder of the adapter to start from."""
    privacy: Privacy | None = None
    """Settings of differential privacy; None without. With them each row names its unit (person or source)."""
    keep_last: bool = False
    """Keep the last weights, not those of the best validation."""

    @property
    def four_bit(self) -> bool:
        """Whether the base model is loaded in 4 bits."""
        return self.adapter.method == "qlora"


def from_sft_config(section: Sft, *, seed: int, profile: HardwareProfile, project: str) -> TrainingArgs:
    """Return the training arguments of the sft stage from its config section."""
    targets = section.target_modules if isinstance(section.target_modules, str) else tuple(section.target_modules)
    stop = section.early_stopping
    return TrainingArgs(
        label="sft",
        adapter=LoraArgs(section.method, section.lora_rank, section.lora_alpha, section.lora_dropout, targets),
        epochs=section.epochs,
        batch_size=section.batch_size,
        optimizer=section.optimizer,
        learning_rate=section.learning_rate,
        lr_scheduler=section.lr_scheduler,
        warmup_ratio=section.warmup_ratio,
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
        label_smoothing=section.label_smoothing,
        neftune_noise_alpha=section.neftune_noise_alpha,
        ema_decay=section.ema_decay,
        prefix_sharing=section.prefix_sharing,
        evals_per_epoch=section.evals_per_epoch,
        patience=stop.patience if stop else None,
        min_delta=stop.min_delta if stop else 0.0,
        save_steps=section.save_steps,
        seed=seed,
        profile=profile,
        project=project,
        init_adapter=Path(section.init_adapter) if section.init_adapter else None,
        privacy=section.privacy,
        keep_last=section.privacy is not None,  # to choose by validation would let its people decide what is kept
    )


def from_cpt_config(section: LoraCpt, *, seed: int, profile: HardwareProfile) -> TrainingArgs:
    """Return the training arguments of the cpt stage from its config section: blocks of text count as answers."""
    return TrainingArgs(
        label="cpt",
        adapter=LoraArgs("lora", section.lora_rank, section.lora_alpha, 0.0, "all-linear"),
        epochs=section.epochs,
        batch_size=section.batch_size,
        optimizer="adamw",
        learning_rate=section.learning_rate,
        lr_scheduler=section.lr_scheduler,
        warmup_ratio=section.warmup_ratio,
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
        label_smoothing=0.0,
        neftune_noise_alpha=None,
        ema_decay=None,
        prefix_sharing=False,
        evals_per_epoch=2,
        patience=None,
        min_delta=0.0,
        save_steps=section.save_steps,
        seed=seed,
        profile=profile,
        project="cpt",
    )


def derive_seed(seed: int, offset: int) -> int:
    """Return the seed that follows ``seed`` at a distance of ``offset``; 0 follows the largest one."""
    return (seed + offset) % SEEDS


def suggest_for_lost_loss(section: str, learning_rate: float, max_grad_norm: float | None) -> str:
    """Return a hint on which settings of ``section`` to change after a NaN or infinite loss; it never suggests the current value."""
    if max_grad_norm is None or max_grad_norm > USUAL_GRAD_NORM:
        clip = f"set {section}.max_grad_norm={USUAL_GRAD_NORM}"
    else:
        clip = f"{section}.max_grad_norm (now {max_grad_norm:g})"
    return f"lower {section}.learning_rate (now {learning_rate:g}), or {clip}"

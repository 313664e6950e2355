"""What a trainer is told: everything that shapes a fit, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunectl.config.schema.adapt import LoraCpt
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.config.schema.sft import Schedule, Sft


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
    optimiser: str
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
    targets = section.targets if isinstance(section.targets, str) else tuple(section.targets)
    stop = section.early_stopping
    return TrainingArgs(
        label="sft",
        adapter=LoraArgs(section.method, section.rank, section.alpha, section.dropout, targets),
        epochs=section.epochs,
        batch_answers=section.batch_answers,
        optimiser=section.optimiser,
        learning_rate=section.learning_rate,
        schedule=section.schedule,
        warmup=section.warmup,
        weight_decay=section.weight_decay,
        clip=section.clip,
        label_smoothing=section.label_smoothing,
        neftune=section.neftune,
        average=section.average,
        share_prompts=section.share_prompts,
        validations=section.validations,
        patience=stop.patience if stop else None,
        least_gain=stop.least_gain if stop else 0.0,
        checkpoint_steps=section.checkpoint_steps,
        report_to=tuple(section.report_to),
        seed=seed,
        profile=profile,
        project=project,
        start=Path(section.start) if section.start else None,
    )


def from_cpt_config(section: LoraCpt, *, seed: int, profile: HardwareProfile) -> TrainingArgs:
    """The plan of the adapt stage: blocks of text count as answers."""
    return TrainingArgs(
        label="adapt",
        adapter=LoraArgs("lora", section.rank, section.alpha, 0.0, "all-linear"),
        epochs=section.epochs,
        batch_answers=section.batch_blocks,
        optimiser="adamw",
        learning_rate=section.learning_rate,
        schedule=section.schedule,
        warmup=section.warmup,
        weight_decay=section.weight_decay,
        clip=section.clip,
        label_smoothing=0.0,
        neftune=None,
        average=None,
        share_prompts=False,
        validations=2,
        patience=None,
        least_gain=0.0,
        checkpoint_steps=section.checkpoint_steps,
        report_to=(),
        seed=seed,
        profile=profile,
        project="adapt",
    )

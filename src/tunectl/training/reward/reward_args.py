"""Protocols and arguments of reward models, independent of the library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tunectl.config.schema.hardware import HardwareProfile
from tunectl.config.schema.reward import RewardModelConfig
from tunectl.training.protocols import TrainResult
from tunectl.training.reward.pair_batches import PromptGroup
from tunectl.training.train_args import LoraArgs, TrainingArgs


@dataclass(frozen=True, slots=True)
class RewardArgs:
    """Arguments of the training of one reward model: those of any adapter, and the weight that centers rewards at 0."""

    fit: TrainingArgs
    center_rewards_coefficient: float | None
    """Weight of the loss term that pulls rewards to a mean of zero; None leaves it out."""


def from_config(
    section: RewardModelConfig, *, answers: int, seed: int, profile: HardwareProfile, project: str
) -> RewardArgs:
    """Return the arguments of one reward model from its config section; ``answers`` is their number per optimizer step."""
    targets = section.target_modules if isinstance(section.target_modules, str) else tuple(section.target_modules)
    stop = section.early_stopping
    fit = TrainingArgs(
        label="reward",
        adapter=LoraArgs(section.method, section.lora_rank, section.lora_alpha, section.lora_dropout, targets),
        epochs=section.epochs,
        batch_size=answers,
        optimizer=section.optimizer,
        learning_rate=section.learning_rate,
        lr_scheduler=section.lr_scheduler,
        warmup_ratio=section.warmup_ratio,
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
        label_smoothing=0.0,
        neftune_noise_alpha=None,
        ema_decay=None,
        prefix_sharing=section.prefix_sharing,
        evals_per_epoch=section.evals_per_epoch,
        patience=stop.patience if stop else None,
        min_delta=stop.min_delta if stop else 0.0,
        save_steps=section.save_steps,
        seed=seed,
        profile=profile,
        project=project,
    )
    return RewardArgs(fit, section.center_rewards_coefficient)


class RewardTrainer(Protocol):
    """Trains reward models on top of a tuned model: the base ``model`` with the adapter ``sft`` merged in."""

    def fit(
        self,
        plan: RewardArgs,
        *,
        model: Path,
        sft: Path,
        train: Sequence[PromptGroup],
        validation: Sequence[PromptGroup],
        out: Path,
        work: Path,
    ) -> TrainResult:
        """Train on ``train``, write adapter and score head of the best log-loss on ``validation`` to folder ``out``; return losses and curve.

        ``work`` is a folder that survives a kill: training resumes from the last complete checkpoint in it. Losses are nats per pair.
        """

    def rewards(
        self, plan: RewardArgs, *, model: Path, sft: Path, members: Sequence[Path], bundles: Sequence[PromptGroup]
    ) -> list[list[list[float]]]:
        """Return raw rewards (logits): for each reward model one list per prompt group, with one number per answer, in their order.

        ``members`` are folders that ``fit`` wrote, one per reward model; ``bundles`` are the prompt groups.
        """

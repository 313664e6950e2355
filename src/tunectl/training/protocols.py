"""Protocols of trainers, independent of the library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from tunectl.artifacts.privacy_budget import PrivacyBudget
from tunectl.training.prefix_sharing import PackedRow
from tunectl.training.train_args import TrainingArgs


class LogPoint(Struct, frozen=True):
    """One point of the training curve: losses, learning rate and speed; None where one was not measured at that step."""

    step: int
    epoch: int
    loss: float | None
    """Nats per trained token, mean since the last point."""
    validation_loss: float | None
    """Nats per trained token."""
    learning_rate: float
    tokens_per_second: float
    """Tokens of prompts and answers per second since the last point, without padding."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Result of a training by a Trainer or RewardTrainer: steps, losses, tokens and learning curve."""

    steps: int
    """Steps done; fewer than planned where it stopped early."""
    planned_steps: int
    best_step: int
    """Step whose weights were kept."""
    best_loss: float
    """Validation loss of those weights, nats per trained token."""
    first_loss: float
    """Validation loss before the first step."""
    tokens: int
    """Tokens of prompts and answers read in all steps, without padding."""
    tokens_apart: int
    """The same, had every answer its own copy of the prompt."""
    seconds: float
    """Seconds of the training steps, over all parts of an interrupted run; validation is not counted."""
    trainable: int
    """Number of the adapter's weights."""
    shared_prompts: bool
    """Whether prompts were read once for all their answers."""
    history: tuple[LogPoint, ...]
    privacy: PrivacyBudget | None = None
    """Privacy spent by a private training."""


class Trainer(Protocol):
    """Trains the LoRA adapter of sft or cpt; backends implement it with torch."""

    def fit(
        self,
        plan: TrainingArgs,
        *,
        model: Path,
        train: Sequence[PackedRow],
        validation: Sequence[PackedRow],
        out: Path,
        work: Path,
    ) -> TrainResult:
        """Train on ``train``, write the adapter of the best loss on ``validation`` to folder ``out``, and return losses and curve.

        With differential privacy the last weights are kept. ``model`` is a model folder. ``work`` is a folder that survives a kill:
        training resumes from the last complete checkpoint in it.
        """

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
    """One line of the training curve; None where it was not measured at that step."""

    step: int
    epoch: int
    loss: float | None
    """Nats a learned token, mean since the last point."""
    validation_loss: float | None
    """Nats a learned token."""
    learning_rate: float
    tokens_per_second: float
    """Prompt and answer tokens read, padding not counted, since the last point."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a fit went."""

    steps: int
    """Steps done; fewer than planned where it stopped early."""
    planned_steps: int
    best_step: int
    """Step whose weights were kept."""
    best_loss: float
    """Validation loss of those weights, nats a learned token."""
    first_loss: float
    """Validation loss before the first step."""
    tokens: int
    """Prompt and answer tokens read in all steps, padding not counted."""
    tokens_apart: int
    """The same, had every answer been read with a prompt of its own."""
    seconds: float
    """Of the training steps, over all parts of an interrupted run; validation is not counted."""
    trainable: int
    """Weights of the adapter."""
    shared_prompts: bool
    """Whether prompts were read once for all their answers."""
    history: tuple[LogPoint, ...]
    privacy: PrivacyBudget | None = None
    """What a private fit spent."""


class Trainer(Protocol):
    """Fits an adapter."""

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
        """Fit on ``train``, keep the weights of the best loss on ``validation`` (of a private fit: the last), write the adapter into ``out``.

        ``model`` is a model folder. ``work`` survives a kill: the fit goes on from the last complete checkpoint in it.
        """

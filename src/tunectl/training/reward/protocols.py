"""Protocol of reward models, for training and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from tunectl.artifacts.records import Message


class RewardScore(NamedTuple):
    """Score of one answer by a reward model, and how far the ensemble's members disagree."""

    value: float
    """Mean over the members of the ensemble, centered and scaled: about 0 for a usual answer, 1 is one standard deviation
    of the answers that people compared on validation."""
    spread: float
    """Standard deviation over the members, in the same units; 0 for one member."""


class ScoredPrompt(NamedTuple):
    """The conversation before an answer that a reward model scores."""

    messages: Sequence[Message]
    """The conversation without the model's default system text."""
    tools: Sequence[dict[str, Any]] = ()
    """Tools that the model may call in it."""


class RewardModel(Protocol):
    """A loaded reward model, or an ensemble of them, that scores answers; it stays in memory until ``close``."""

    def score(self, prompts: Sequence[ScoredPrompt], answers: Sequence[str]) -> list[RewardScore]:
        """Return one score per answer, in their order; ``prompts`` has the prompt of each answer.

        Batches are formed by length; a prompt that consecutive answers share is read once.
        Raises  ArtifactError where a score is NaN or infinite.
        """

    def close(self) -> None:
        """Release the memory."""

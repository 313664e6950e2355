"""What a reward model tells those who learn from it or are judged by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from tunectl.artifacts.records import Message


class RewardScore(NamedTuple):
    """How good one answer is, as a reward model sees it."""

    value: float
    """Mean over the members of the ensemble, centered and scaled: about 0 for a usual answer, 1 is one standard deviation
    of the answers that people compared on validation."""
    spread: float
    """Standard deviation over the members, in the same units; 0 for one member."""


class ScoredPrompt(NamedTuple):
    """What an answer is given to."""

    messages: Sequence[Message]
    """The conversation without the system text in force."""
    tools: Sequence[dict[str, Any]] = ()
    """Those on offer in it."""


class RewardModel(Protocol):
    """Score answers by a trained reward model, or an ensemble of them; it stays loaded between calls."""

    def score(self, prompts: Sequence[ScoredPrompt], answers: Sequence[str]) -> list[RewardScore]:
        """Return one score an answer, in their order.

        Answers are batched by length inside; prompts that neighbors share are read once.
        Raises  ArtifactError where a score is no number.
        """

    def close(self) -> None:
        """Give the memory back."""

"""What becomes an example, and the reasons why the rest does not."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Final, Literal

from msgspec import Struct

from tunectl.artifacts.records import InferenceRecord
from tunectl.config.schema.feedback import FeedbackFromLog

ExampleKind = Literal["edit", "approved"]
SkipReason = Literal[
    "erased",
    "unfinished",
    "no_chat",
    "quarantined",
    "not_approved",
    "in_golden",
    "user_cap",
    "annotator_cap",
    "annotator_share",
    "prompt_cap",
    "model_text_share",
]
REASONS: Final[dict[SkipReason, str]] = {
    "erased": "somebody asked for erasure",
    "unfinished": "the answer never ended",
    "no_chat": "no conversation, or nothing was answered",
    "quarantined": "what was said is too new: others may still object",
    "not_approved": "nobody approved of it, or somebody objected",
    "in_golden": "the golden set asks the same",
    "user_cap": "this person asked for more than their share of the rows",
    "annotator_cap": "this person approved of more than their share of the rows",
    "annotator_share": "this person would have more than their share of all rows",
    "prompt_cap": "the same was asked often enough",
    "model_text_share": "too much of the model's own text already",
}


class FeedbackRules(Struct, frozen=True):
    """Who and what counts for how much."""

    quarantine: timedelta
    """How long an opinion waits before it counts."""
    per_user: int
    """Rows of one person who asks."""
    per_annotator: int
    """Rows of one person who approves or edits."""
    annotator_share: float
    """Of all rows, from one person who approves or edits; 1: no bound."""
    per_prompt: int
    """Rows of one question."""
    model_text_share: float
    """Of all rows, those that the model wrote and people only approved of."""
    holdout: float
    """Of the questions, those that are kept for the gate and not learned."""


def rules_of(section: FeedbackFromLog) -> FeedbackRules:
    """Return the section of the configuration as this room wants it."""
    return FeedbackRules(
        timedelta(hours=section.quarantine_hours),
        section.max_per_user,
        section.max_per_annotator,
        section.max_annotator_share,
        section.max_per_prompt,
        section.max_model_text_share,
        section.holdout,
    )


class FeedbackExample(Struct, frozen=True):
    """One inference that is learned from, or kept for the gate."""

    inference: InferenceRecord
    """With the answer as people want it."""
    kind: ExampleKind
    by: str | None
    """Keyed hash of whoever edited or approved it last."""
    prompt: str
    """Digest of the question."""
    held: bool
    """Kept for the gate."""


class FeedbackSelection(Struct, frozen=True):
    """What came of a snapshot."""

    examples: list[FeedbackExample]
    """The oldest first."""
    left: list[tuple[str, SkipReason]]
    """Inference and why it is no example."""

    @property
    def reasons(self) -> dict[str, int]:
        """How many, by reason."""
        return dict(sorted(Counter(reason for _, reason in self.left).items()))

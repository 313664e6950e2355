"""Rules by which feedback becomes training examples, and the reasons for skipping the rest."""

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
    """Limits on the training examples of each person and prompt."""

    quarantine: timedelta
    """Age of feedback from which it counts."""
    per_user: int
    """Most rows from the requests of one user."""
    per_annotator: int
    """Most rows from one person who approves or edits."""
    annotator_share: float
    """Largest share of all rows from one person who approves or edits; 1: no limit."""
    per_prompt: int
    """Most rows for one prompt."""
    model_text_share: float
    """Largest share of all rows that the model wrote and people only approved."""
    holdout: float
    """Share of the prompts that are kept for the gate and not trained on."""


def rules_of(section: FeedbackFromLog) -> FeedbackRules:
    """Return the rules in a section of the configuration."""
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
    """An inference for training, or for the gate."""

    inference: InferenceRecord
    """The inference, with the approved or edited answer."""
    kind: ExampleKind
    by: str | None
    """Keyed hash of whoever edited or approved it last."""
    prompt: str
    """Digest of the prompt."""
    held: bool
    """Whether it is kept for the gate."""


class FeedbackSelection(Struct, frozen=True):
    """Training examples of a snapshot, and what was skipped."""

    lessons: list[FeedbackExample]
    """Examples, the oldest first."""
    left: list[tuple[str, SkipReason]]
    """Skipped inferences, with the reason."""

    @property
    def reasons(self) -> dict[str, int]:
        """Return the number of skipped inferences by reason."""
        return dict(sorted(Counter(reason for _, reason in self.left).items()))

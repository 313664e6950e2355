"""The feedback section: training rows from user feedback, and how many each person may give, votes in the arena included."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, RootModel

from tunectl.config.schema.base import Share, StrictModel


class FeedbackFromLog(StrictModel):
    """Training rows from snapshots of the inference log."""

    method: Literal["inference_log"]
    """Name of this choice."""
    window: str = Field(min_length=1)
    """File that names the snapshots; only `tunectl retrain controller` (or a person) advances it."""
    snapshots: str = Field(min_length=1)
    """Folder of the snapshots; it holds texts of users, so keep it out of Git."""
    quarantine_hours: float = Field(ge=0, le=24 * 3650)
    """Hours before a feedback record or a vote in the arena counts, so that others can contradict it."""
    max_per_user: int = Field(ge=1)
    """Rows from the requests of one user at most."""
    max_per_annotator: int = Field(ge=1)
    """Rows from one person who approves or edits at most."""
    max_annotator_share: Annotated[float, Field(gt=0, le=1)]
    """Highest share of all rows from one person who approves or edits; 1: no limit."""
    max_per_prompt: int = Field(ge=1)
    """Rows for one prompt at most."""
    max_model_text_share: Share
    """Highest share of rows that the model wrote and people only approved; 0: edits alone."""
    holdout: Annotated[float, Field(ge=0, lt=1)]
    """Share of prompts kept for the promotion gate and never trained on; more: surer gate, fewer training rows."""


class FeedbackDisabled(StrictModel):
    """Switches feedback off: no training rows are made from it, and votes in the arena do not count."""

    method: Literal["none"]
    """Name of this choice."""


class FeedbackConfig(RootModel[Annotated[FeedbackFromLog | FeedbackDisabled, Field(discriminator="method")]]):
    """The section ``feedback``: training rows from user feedback, or none."""


class FeedbackStage(StrictModel):
    """Sections of the configuration that the stage feedback reads, from ``artifacts/config/feedback.json``."""

    feedback: FeedbackConfig
    """The section of this stage."""

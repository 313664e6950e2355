"""The feedback section: what is learned from live traffic, and who counts for how much."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, RootModel

from tunectl.config.schema.base import StrictModel

Share = Annotated[float, Field(ge=0, le=1)]


class FeedbackFromLog(StrictModel):
    """Snapshots of live traffic become training rows."""

    method: Literal["inference_log"]
    """Fixed name of this choice."""
    window: str = Field(min_length=1)
    """File that names the snapshots; `tunectl watch` advances it, and nothing else makes a retrain."""
    snapshots: str = Field(min_length=1)
    """Folder of the snapshots, outside Git."""
    quarantine_hours: float = Field(ge=0, le=24 * 3650)
    """How long an opinion waits before it counts, so that others can object."""
    max_per_user: int = Field(ge=1)
    """Rows of one person who asks."""
    max_per_annotator: int = Field(ge=1)
    """Rows of one person who approves or edits."""
    max_annotator_share: Annotated[float, Field(gt=0, le=1)]
    """Of all rows, from one person who approves or edits; 1 is no bound."""
    max_per_prompt: int = Field(ge=1)
    """Rows of one question."""
    max_model_text_share: Share
    """Of all rows, answers that the model wrote and people only approved of; 0 takes edits alone."""
    holdout: Annotated[float, Field(ge=0, lt=1)]
    """Of the questions, those that are kept for the gate and never learned."""


class FeedbackDisabled(StrictModel):
    """Nothing is learned from live traffic."""

    method: Literal["none"]
    """Fixed name of this choice."""


class Harvest(RootModel[Annotated[FeedbackFromLog | FeedbackDisabled, Field(discriminator="method")]]):
    """The feedback section of ``conf/``."""


class FeedbackStage(StrictModel):
    """What the stage sees of the configuration."""

    feedback: Harvest
    """Its section."""

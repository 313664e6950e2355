"""The track section: experiment trackers that get every build, and the model registry that mirrors releases."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tunectl.config.schema.base import StrictModel


class Track(StrictModel):
    """The section ``track``: experiment trackers and the model registry. No stage reads it."""

    to: list[Literal["mlflow", "wandb"]]
    """Trackers that get every build of `tunectl repro`; each needs its extra. Empty: none."""
    experiment: str = Field(min_length=1)
    """MLflow experiment, or W&B project."""
    uri: str | None = Field(min_length=1)
    """MLflow's tracking server. Null: MLFLOW_TRACKING_URI."""
    registry_uri: str | None = Field(min_length=1)
    """MLflow's model registry where it is another server, such as databricks-uc. Null: that of uri."""
    registered_model: str | None = Field(pattern=r"^[^/:.]+(\.[^/:.]+\.[^/:.]+)?$")
    """Name in MLflow's registry that mirrors releases; one part, or catalog.schema.model. Null: releases are not mirrored."""
    timeout_seconds: int = Field(ge=1, le=3600)
    """Longest wait for one answer of a tracker; a build never waits."""

    @model_validator(mode="after")
    def _check_registry(self) -> Self:
        if self.registered_model is not None and "mlflow" not in self.to:
            raise ValueError(
                f"registered_model is {self.registered_model}, and track.to has no mlflow; add it, or set registered_model to null"
            )
        if self.registry_uri == "databricks-uc" and (self.registered_model or "").count(".") != 2:
            raise ValueError(
                f"registered_model is {self.registered_model}; with registry_uri databricks-uc it must be catalog.schema.model"
            )
        return self

"""The whole configuration: one field per section, one section per file."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from tunectl.config.schema.align import AlignConfig
from tunectl.config.schema.annotate import Annotate
from tunectl.config.schema.base import StrictModel
from tunectl.config.schema.console import ConsoleConfig
from tunectl.config.schema.cpt import ContinuedPretraining
from tunectl.config.schema.curate import Curate
from tunectl.config.schema.evaluate import Evaluate
from tunectl.config.schema.federate import Federate
from tunectl.config.schema.feedback import FeedbackConfig
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.config.schema.inference_log import InferenceLogConfig
from tunectl.config.schema.ingest import Ingest
from tunectl.config.schema.launch import LaunchConfig
from tunectl.config.schema.model import BaseModelConfig
from tunectl.config.schema.monitor import Monitor
from tunectl.config.schema.package import Package
from tunectl.config.schema.preferences import Preferences
from tunectl.config.schema.retrain import RetrainingConfig
from tunectl.config.schema.reward import Reward
from tunectl.config.schema.serve import Serve
from tunectl.config.schema.sft import Sft
from tunectl.config.schema.split import Split
from tunectl.config.schema.submit import Submit
from tunectl.config.schema.sweep import Sweep
from tunectl.config.schema.track import Track


class DataVariables(StrictModel):
    """Variables of an experiment, which its sources refer to as ``${data.path}``."""

    path: str = Field(min_length=1)
    """File, folder or glob that the sources of the experiment read, relative to the project."""


class TunectlConfig(StrictModel):
    """The whole composed configuration of ``conf/``: one field per section."""

    project: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Name of the project in reports, model cards and tracking."""
    seed: int = Field(ge=0, lt=2**32)
    """Seed of every random choice; change it to measure the spread between runs."""
    data: DataVariables | None
    """Inputs that an experiment asks for on the command line; null where the sources name their own."""
    hardware: HardwareProfile
    launch: LaunchConfig
    model: BaseModelConfig
    ingest: Ingest
    feedback: FeedbackConfig
    curate: Curate
    split: Split
    cpt: ContinuedPretraining
    sft: Sft
    preferences: Preferences
    reward: Reward
    align: AlignConfig
    annotate: Annotate
    evaluate: Evaluate
    package: Package
    inference_log: InferenceLogConfig
    serve: Serve
    monitor: Monitor
    retrain: RetrainingConfig
    console: ConsoleConfig
    submit: Submit
    sweep: Sweep
    track: Track
    federate: Federate

    @model_validator(mode="after")
    def _require_local_private_fits(self) -> Self:
        if self.sft.privacy is not None and self.launch.root.method != "local":
            raise ValueError(
                f"sft.privacy is not supported with launch={self.launch.root.method}: each unit is clipped in one process; "
                "set launch=local, or sft.privacy=null"
            )
        return self

"""The whole configuration: one field a section, one section a file."""

from __future__ import annotations

from pydantic import Field

from tunectl.config.adapt import Adapt
from tunectl.config.align import Align
from tunectl.config.annotate import Annotate
from tunectl.config.base import Strict
from tunectl.config.curate import Curate
from tunectl.config.evaluate import Evaluate
from tunectl.config.harvest import Harvest
from tunectl.config.ingest import Ingest
from tunectl.config.live import Live
from tunectl.config.model import Model
from tunectl.config.monitor import Monitor
from tunectl.config.package import Package
from tunectl.config.preferences import Preferences
from tunectl.config.profile import Profile
from tunectl.config.reward import Reward
from tunectl.config.serve import Serve
from tunectl.config.sft import Sft
from tunectl.config.split import Split
from tunectl.config.watch import Watch


class Data(Strict):
    """Named inputs of an experiment, for its sources to refer to as ``${data.path}``."""

    path: str = Field(min_length=1)
    """File, folder or glob."""


class Root(Strict):
    """What ``conf/`` composes to."""

    project: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Name of the project in reports, model cards and tracking."""
    seed: int = Field(ge=0, lt=2**32)
    """Seeds every random choice: splits, initial adapter weights, sampling, bootstrap."""
    data: Data | None
    """Inputs that an experiment asks for on the command line; null where the sources name their own."""
    profile: Profile
    model: Model
    ingest: Ingest
    harvest: Harvest
    curate: Curate
    split: Split
    adapt: Adapt
    sft: Sft
    preferences: Preferences
    reward: Reward
    align: Align
    annotate: Annotate
    evaluate: Evaluate
    package: Package
    live: Live
    serve: Serve
    monitor: Monitor
    watch: Watch

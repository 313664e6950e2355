"""The launch section: on which processes and machines a fit runs. It is in no stage's JSON: another choice reruns nothing."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, RootModel

from tunectl.config.schema.base import StrictModel


class LocalLaunch(StrictModel):
    """In the process of the stage."""

    method: Literal["local"]
    """Name of this choice."""


class TorchrunLaunch(StrictModel):
    """Several processes by torchrun, one for each card."""

    method: Literal["torchrun"]
    """Name of this choice."""
    nproc_per_node: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"]
    """Processes on this machine. auto: one for each card; on a CPU give a number. The batch of a step stays the same."""
    max_restarts: int = Field(ge=0, le=1000)
    """Times that all processes are started again, from the last checkpoint, after one has failed."""
    shard: Literal["none", "layers"]
    """layers: divide the frozen layers among the processes (FSDP2), for models that are larger than a card. Slower; the same weights."""
    collective_timeout_seconds: int = Field(ge=10, le=86_400)
    """Seconds that a process waits for the others before it gives up, and all are started again."""


class LaunchConfig(RootModel[Annotated[LocalLaunch | TorchrunLaunch, Field(discriminator="method")]]):
    """The launch section of ``conf/``."""

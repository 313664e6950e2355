"""The launch section: on which processes and machines a training runs. It is in no stage's JSON: another choice reruns nothing."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, RootModel, model_validator

from tunectl.config.schema.base import HostPort, StrictModel, validate_endpoint


class LocalLaunch(StrictModel):
    """Trains in the process of the stage."""

    method: Literal["local"]
    """Name of this choice."""


class TorchrunLaunch(StrictModel):
    """Trains in several processes that torchrun starts, one per GPU."""

    method: Literal["torchrun"]
    """Name of this choice."""
    nproc_per_node: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"]
    """Processes on this machine. auto: one per card; on a CPU give a number. The batch of a step stays the same."""
    nnodes: int = Field(ge=1, le=1024)
    """Machines. With more than one, start ``tunectl run STAGE --join`` on each of the others."""
    rdzv_endpoint: HostPort | None
    """HOST:PORT of the first machine, to which the others connect. Null with one machine."""
    storage_path: str | None = Field(min_length=1)
    """Folder that all machines see at this path, for rows and checkpoints; the model has to be visible as well. Null with one machine."""
    max_restarts: int = Field(ge=0, le=1000)
    """Times that all processes are started again, from the last checkpoint, after one has failed."""
    shard: Literal["none", "layers"]
    """layers: divide the frozen layers among the processes (FSDP2): less memory on each card. Slower; the same weights."""
    collective_timeout_seconds: int = Field(ge=10, le=86_400)
    """Seconds that a process waits for the others before it gives up, and all are started again."""

    @model_validator(mode="after")
    def _check_rendezvous(self) -> Self:
        if self.storage_path is not None and "://" in self.storage_path:
            raise ValueError(
                f"storage_path is {self.storage_path}, and torchrun needs a folder that all machines see; "
                "checkpoints at an address are for launch=ray"
            )
        for name in ("rdzv_endpoint", "storage_path"):
            if self.nnodes > 1 and getattr(self, name) is None:
                raise ValueError(f"nnodes is {self.nnodes}, and {name} is null; several machines need one")
        return self


Workers = Annotated[int, Field(ge=1, le=4096)]


class RayLaunch(StrictModel):
    """Trains in workers of a Ray cluster, with Ray Train."""

    method: Literal["ray"]
    """Name of this choice."""
    address: str = Field(min_length=1)
    """local: start a cluster on this machine. auto: the one that runs here. HOST:PORT: another one that this machine belongs to."""
    num_workers: Workers | tuple[Workers, Workers]
    """Workers, one per card; two numbers: at least and at most, as nodes come and go. The batch of a step stays the same."""
    max_failures: int = Field(ge=0, le=1000)
    """Times that all workers start again, from the last checkpoint, after a worker or a node has failed."""
    storage_path: str | None = Field(min_length=1)
    """Where checkpoints go: a folder that all nodes see, or an address such as ``s3://bucket/folder``. Null with address local alone."""
    shard: Literal["none", "layers"]
    """layers: divide the frozen layers among the workers (FSDP2): less memory on each card."""
    collective_timeout_seconds: int = Field(ge=10, le=86_400)
    """Seconds that a worker waits for the others before it gives up, and all are started again."""

    @model_validator(mode="after")
    def _check_cluster(self) -> Self:
        if "://" in self.address:
            raise ValueError(
                f"address is {self.address}; Ray's client (ray://) is not supported: run on a node of the cluster with address auto, "
                "or send a job (tunectl submit run STAGE --to ray)"
            )
        if self.address not in ("local", "auto"):
            try:
                validate_endpoint(self.address)
            except ValueError as error:
                raise ValueError(f"address is {self.address}; it {error}, or local, or auto") from error
        if self.storage_path is None and self.address != "local":
            raise ValueError(
                f"address is {self.address}, and storage_path is null; nodes need one that all of them see"
            )
        if isinstance(self.num_workers, tuple) and self.num_workers[0] > self.num_workers[1]:
            raise ValueError(f"num_workers is {list(self.num_workers)}; give the smaller number first")
        return self


class LaunchConfig(RootModel[Annotated[LocalLaunch | TorchrunLaunch | RayLaunch, Field(discriminator="method")]]):
    """The section ``launch``: the processes and machines on which a training runs."""

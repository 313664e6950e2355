"""The submit section: builds on a cluster (``tunectl submit``). No stage reads it, so changing it reruns nothing."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from tunectl.config.schema.base import StrictModel


def _require_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"{text!r} has a line break or a control code; write it on one line")
    return text


def _require_absolute(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError(
            f"{text!r} is no absolute path; a job works in a folder that its machines see. "
            "Checkpoints in an object store are launch.storage_path, with launch=ray"
        )
    return text


Line = Annotated[str, Field(min_length=1), AfterValidator(_require_printable)]
"""Text of one line: a line break would begin another line of the job's file."""
ResourceName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
"""Name of a Kubernetes object."""


class SlurmOptions(StrictModel):
    """Options of a job on SLURM (sbatch); the other schedulers ignore them."""

    options: list[Annotated[Line, Field(pattern=r"^--[a-z][a-z0-9-]*(=\S.*)?$")]]
    """More options of sbatch, such as ``--partition=gpu``."""


class KubernetesOptions(StrictModel):
    """Options of a job on Kubernetes; the other schedulers ignore them."""

    image: Line | None
    """Container image with bash, git and tunectl. Null: none, which Kubernetes refuses."""
    namespace: ResourceName
    """Namespace of the job."""
    secret: ResourceName | None
    """Secret whose keys become environment variables. Null: none."""
    volume_claim: ResourceName | None
    """PersistentVolumeClaim that is mounted at storage_path. Null: none, so the job starts anew after a restart."""
    gpu_resource: Annotated[str, Field(pattern=r"^[a-z0-9.-]+/[a-z0-9.-]+$")]
    """Kubernetes resource of one GPU, such as ``nvidia.com/gpu``."""


class RayOptions(StrictModel):
    """Options of a job of ``ray job submit``; the other schedulers ignore them."""

    address: Annotated[Line, Field(pattern=r"^(https?|ray)://\S+$")]
    """Address of the cluster's dashboard, which takes jobs."""


class Submit(StrictModel):
    """The section ``submit``: the cluster job that ``tunectl submit`` sends."""

    to: Literal["slurm", "kubernetes", "ray"]
    """Scheduler of the job: sbatch, kubectl or ``ray job submit``."""
    storage_path: Annotated[Line, AfterValidator(_require_absolute)] | None
    """Folder that the job's machines see at this path; a job works, and keeps its checkpoints, below it. Null: not set yet."""
    repository: Line | None
    """Address that the job clones. Null: that of the remote of the checked-out branch."""
    remote: Annotated[str, Field(pattern=r"^[\w-]+$")] | None
    """DVC remote for inputs and results. Null: core.remote of .dvc/config."""
    setup: list[Line]
    """Shell commands that run first. They are copied into the job unchanged."""
    nodes: int = Field(ge=1, le=1024)
    """Machines of the job."""
    gpus: int = Field(ge=0, le=64)
    """GPUs of each machine; 0: none."""
    cpus: int | None = Field(ge=1, le=4096)
    """Cores of each machine. Null: what the cluster gives by default."""
    memory_gb: int | None = Field(ge=1, le=65_536)
    """Memory of each machine in GB. Null: what the cluster gives by default."""
    max_hours: float = Field(gt=0, le=24 * 365)
    """Hours after which the cluster ends the job. SLURM: it is requeued and resumes."""
    grace_seconds: int = Field(ge=10, le=3600)
    """Seconds before that end at which the current step is finished and saved."""
    max_restarts: int = Field(ge=0, le=1000)
    """Times that a job is started again after it was preempted or ran out of hours."""
    template: Line | None
    """File that replaces the generated sbatch script or manifest. Null: it is generated."""
    slurm: SlurmOptions
    kubernetes: KubernetesOptions
    ray: RayOptions

    @model_validator(mode="after")
    def _check_nodes(self) -> Self:
        if self.nodes > 1 and self.to != "slurm":
            raise ValueError(
                f"nodes is {self.nodes}, but only `to: slurm` has jobs of several machines (now `to: {self.to}`); "
                "set that, or set nodes to 1"
            )
        if self.max_hours * 3600 <= self.grace_seconds:
            raise ValueError(
                f"max_hours is {self.max_hours}, which is less than grace_seconds ({self.grace_seconds}); raise it, or lower grace_seconds"
            )
        return self

"""Description of a job, from which its script is written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunectl.config.schema.submit import Submit


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A job that builds pipeline stages of one commit on a cluster; templates and scripts are filled from it."""

    id: str
    """Lower-case letters, digits and hyphens: a valid name for SLURM, Kubernetes and Ray."""
    stages: Sequence[str]
    """Stages to build; what they read is built, too, where the DVC remote does not have it."""
    inputs: Sequence[str]
    """What DVC fetches first, with all dependencies: the stages, and files of ``dvc add``."""
    fits: Sequence[str]
    """Stages among them that several machines train together, in order."""
    commit: str
    repository: str
    folder: str
    """Path of the project in its repository; empty where it is the whole repository."""
    remote: str
    """DVC remote for inputs and results."""
    overrides: Sequence[str]
    """The ``launch=...`` overrides of the build."""
    section: Submit

    @property
    def name(self) -> str:
        """Name of the job at the scheduler."""
        return f"tunectl-{self.id}"

    @property
    def storage(self) -> str | None:
        """Folder of this job on shared storage, which survives a restart; None where no storage is declared."""
        return f"{self.section.storage_path.rstrip('/')}/{self.id}" if self.section.storage_path else None

    @property
    def minutes(self) -> int:
        """Time limit of the job in minutes."""
        return math.ceil(self.section.max_hours * 60)

    def values(self, log: str) -> Mapping[str, str]:
        """Return the text for each ``@NAME@`` in a template; ``log`` is the path of the job's log."""
        return {
            "ID": self.id,
            "NODES": str(self.section.nodes),
            "GPUS": str(self.section.gpus),
            "MINUTES": str(self.minutes),
            "LOG": log,
        }

"""Records of submitted jobs: one folder per job in ``.tunectl/jobs``, with the record and the file that was sent."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct, field

from tunectl.artifacts.record_format import RecordFormat
from tunectl.core.errors import UsageError

NAME = "job.json"
FORMAT = RecordFormat("job record", ())


class JobRecord(Struct, frozen=True, kw_only=True):
    """Content of ``job.json``: what ``tunectl submit`` sent to which scheduler, and where its results will be."""

    id: str
    to: str
    """slurm, kubernetes or ray."""
    stages: list[str]
    commit: str
    submitted_at: str
    """Time of submission, UTC, ISO 8601."""
    scheduler_id: str
    """The scheduler's id of the job."""
    remote: str
    """DVC remote with its results."""
    storage: str | None
    """Folder of the job on its machines; None: its files are lost with them."""
    location: str = field(name="place")
    """Kubernetes namespace, or Ray dashboard; empty with SLURM."""


def save(jobs: Path, record: JobRecord) -> None:
    """Write the record into the job's folder below ``jobs``."""
    FORMAT.write(jobs / record.id / NAME, record)


def list_jobs(jobs: Path) -> list[JobRecord]:
    """Return the records of all jobs in the folder ``jobs``, the newest first.

    Raises  ArtifactError naming the file that is damaged.
    """
    records = [FORMAT.read(path, JobRecord) for path in jobs.glob(f"*/{NAME}")]
    return sorted(records, key=lambda record: (record.submitted_at, record.id), reverse=True)


def find_job(jobs: Path, name: str) -> JobRecord:
    """Return the record of the job with id ``name``, or of the only one whose id begins so.

    Raises  UsageError where there is none, or more than one.
    """
    matches = [record for record in list_jobs(jobs) if record.id.startswith(name)]
    exact = [record for record in matches if record.id == name]
    if len(exact or matches) != 1:
        what = (
            f"is the beginning of {', '.join(record.id for record in matches)}"
            if matches
            else "is not a job of this project"
        )
        raise UsageError(f"{name} {what}", hint="tunectl submit status lists them")
    return (exact or matches)[0]

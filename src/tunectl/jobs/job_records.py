"""Records of submitted jobs: one folder per job in ``.tunectl/jobs``, with the record, the file that was sent, and what was last seen of it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from tunectl.artifacts.record_format import RecordFormat
from tunectl.core.errors import UsageError

NAME = "job.json"
FORMAT = RecordFormat("job record", ())
PROGRESS: Final = "progress.json"
PROGRESS_FORMAT: Final = RecordFormat("job progress", ())
ENDED: Final = frozenset({"finished", "failed", "canceled"})
"""States in which a job does nothing more."""
UNKNOWN: Final = "unknown"


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
    """The scheduler's id of the job (SLURM with --clusters: ``ID;CLUSTER``); the job's name until it has said one."""
    remote: str
    """DVC remote with its results."""
    storage: str | None
    """Folder of the job on its machines; None: its files are lost with them."""
    location: str = field(name="place")
    """Kubernetes namespace, or Ray dashboard; empty with SLURM."""


class JobProgress(Struct, frozen=True, kw_only=True):
    """Content of ``progress.json``: what the scheduler last said of a job, and what was done with it here. No scheduler is asked to read it."""

    state: str = UNKNOWN
    """pending, running, finished, failed, canceled or lost; unknown until the scheduler was asked for the first time."""
    reason: str = ""
    """Why the scheduler kept the job waiting."""
    seen_at: str | None = None
    """When the scheduler said so, UTC, ISO 8601."""
    canceled_at: str | None = None
    """When ``tunectl submit cancel`` was accepted, UTC, ISO 8601."""
    fetched_at: str | None = None
    """When ``tunectl submit fetch`` had brought the results, UTC, ISO 8601."""
    run: str = ""
    """Run in the ledger that stands for the fetched results; empty where nothing was fetched."""


def save(jobs: Path, record: JobRecord) -> None:
    """Write the record into the job's folder below ``jobs``."""
    FORMAT.write(jobs / record.id / NAME, record)


def remove(jobs: Path, name: str) -> None:
    """Remove the record of the job ``name``, which its scheduler refused; the file that was sent stays."""
    (jobs / name / NAME).unlink(missing_ok=True)


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
    matches = [record for record in list_jobs(jobs) if name and record.id.startswith(name)]
    exact = [record for record in matches if record.id == name]
    if len(exact or matches) != 1:
        what = (
            f"is the beginning of {', '.join(record.id for record in matches)}"
            if matches
            else "is not a job of this project"
        )
        raise UsageError(f"{name or 'an empty id'} {what}", hint="tunectl submit status lists them")
    return (exact or matches)[0]


def list_ids(jobs: Path) -> list[str]:
    """Return the ids of all jobs in the folder ``jobs``, readable or not."""
    return sorted(path.parent.name for path in jobs.glob(f"*/{NAME}"))


def read_job(jobs: Path, name: str) -> JobRecord:
    """Return the record of the job ``name``, one of ``list_ids``.

    Raises  ArtifactError naming the file where it is damaged.
    """
    return FORMAT.read(jobs / name / NAME, JobRecord)


def read_progress(jobs: Path, name: str) -> JobProgress:
    """Return what was last recorded of the job ``name``; the defaults where its scheduler was never asked.

    Raises  ArtifactError naming the file where it is damaged.
    """
    path = jobs / name / PROGRESS
    return PROGRESS_FORMAT.read(path, JobProgress) if path.is_file() else JobProgress()


def record_state(jobs: Path, name: str, state: str, reason: str, at: datetime) -> JobProgress:
    """Record what the scheduler of the job ``name`` said ``at`` a time; return the progress.

    A scheduler forgets a job some time after its end. The end that was seen before then stays; a canceled job that is forgotten is canceled.
    """
    before = read_progress(jobs, name)
    if state == "lost":
        if before.state in ENDED:
            return before
        state = "canceled" if before.canceled_at else state
    return _save_progress(jobs, name, replace(before, state=state, reason=reason, seen_at=_format_time(at)))


def record_cancel(jobs: Path, name: str, at: datetime) -> None:
    """Record that the scheduler accepted ``at`` a time to cancel the job ``name``."""
    _save_progress(jobs, name, replace(read_progress(jobs, name), canceled_at=_format_time(at)))


def record_fetch(jobs: Path, name: str, run: str, at: datetime) -> None:
    """Record that the results of the job ``name`` are here since ``at``, and the ``run`` of the ledger that stands for them."""
    _save_progress(jobs, name, replace(read_progress(jobs, name), fetched_at=_format_time(at), run=run))


def _save_progress(jobs: Path, name: str, progress: JobProgress) -> JobProgress:
    PROGRESS_FORMAT.write(jobs / name / PROGRESS, progress)
    return progress


def _format_time(at: datetime) -> str:
    return at.isoformat(timespec="seconds")

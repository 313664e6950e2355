"""Screen Jobs: builds that were submitted to a cluster, with the state that was last recorded. It asks no cluster; ``tunectl submit status`` does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field
from msgspec.structs import asdict

from tunectl.console.paging import find_page_start
from tunectl.console.read_context import ProblemList, stamp_files
from tunectl.core.url_credentials import hide_credentials
from tunectl.jobs import job_records
from tunectl.jobs.job_records import JobProgress, JobRecord
from tunectl.pipeline import run_ledger

if TYPE_CHECKING:
    from tunectl.console.read_context import ReadContext

PAGE_SIZE: Final = 50


class JobRow(JobRecord, frozen=True, kw_only=True):
    """One submitted job: its record, the state that was last recorded, and what to type for it."""

    state: str
    """State at ``seen_at``; unknown until the scheduler was asked for the first time."""
    reason: str
    """Why the scheduler kept the job waiting."""
    seen_at: str | None
    canceled_at: str | None
    fetched_at: str | None
    run: str
    """Run in the ledger that stands for the fetched results; empty where there is none."""
    commands: list[str]
    """Commands that are of use in this state."""


class JobsScreen(Struct, frozen=True):
    """Content of the screen Jobs: one page of the submitted jobs, the newest first."""

    jobs: list[JobRow] = field(default_factory=list)
    total: int = 0
    at: int = 0
    size: int = PAGE_SIZE
    problems: dict[str, str] = field(default_factory=dict)


def read_jobs(context: ReadContext, query: Mapping[str, str], *, size: int | None = PAGE_SIZE) -> JobsScreen:
    """Return one page of the submitted jobs (``size`` None: all); ``query["job"]`` is the id of a single one, ``query["at"]`` the index of the first."""
    problems = ProblemList()
    rows = _list_rows(context, problems, query.get("job", ""))
    size = max(PAGE_SIZE, len(rows)) if size is None else size
    at = find_page_start(query.get("at", ""), size, len(rows))
    return JobsScreen(rows[at : at + size], len(rows), at, size, problems.problems)


def count_jobs(context: ReadContext, problems: ProblemList) -> dict[str, int]:
    """Return the number of submitted jobs by the state that was last recorded; empty where none was ever submitted."""
    return dict(sorted(Counter(row.state for row in _list_rows(context, problems)).items()))


def _list_rows(context: ReadContext, problems: ProblemList, only: str = "") -> list[JobRow]:
    jobs, nothing = context.layout.jobs, list[str]()
    names = [
        name for name in problems.attempt("jobs", lambda: job_records.list_ids(jobs), nothing) if only in {"", name}
    ]
    runs = problems.attempt("runs", lambda: run_ledger.list_runs(context.layout), nothing) if names else nothing
    rows = []
    for name in names:
        entry = problems.attempt(f"job {name}", partial(_load, context, name), None)
        if entry is not None:
            rows.append(_build_row(*entry, runs))
    return sorted(rows, key=lambda row: (row.submitted_at, row.id), reverse=True)


def _load(context: ReadContext, name: str) -> tuple[JobRecord, JobProgress]:
    jobs = context.layout.jobs
    stamp = stamp_files([jobs / name / job_records.NAME, jobs / name / job_records.PROGRESS])
    return context.cache.get(
        f"job {name}", stamp, lambda: (job_records.read_job(jobs, name), job_records.read_progress(jobs, name))
    )


def _build_row(record: JobRecord, progress: JobProgress, runs: list[str]) -> JobRow:
    fields = asdict(record) | asdict(progress)
    fields |= {"location": hide_credentials(record.location), "run": progress.run if progress.run in runs else ""}
    return JobRow(**fields, commands=list_commands(record.id, progress))


def list_commands(name: str, progress: JobProgress) -> list[str]:
    """Return the commands that are of use for the job ``name``, the likeliest first."""
    fetch, logs, cancel = (f"tunectl submit {verb} {name}" for verb in ("fetch", "logs", "cancel"))
    status = f"tunectl submit status {name}"
    if progress.state == "running":
        return [f"{logs} -f", cancel, status]
    if progress.state in {"pending", job_records.UNKNOWN}:
        return [status, f"{logs} -f", cancel]
    return [logs, fetch] if progress.fetched_at else [fetch, logs]

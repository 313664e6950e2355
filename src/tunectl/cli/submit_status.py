"""``tunectl submit status``: the jobs of this project, the newest first, with their states on the clusters.

tunectl submit status [ID] [--json]

States: pending, running, finished, failed, canceled, lost (the cluster does not know it any more), unknown (its cluster never answered).
What a cluster answers is recorded with the time in .tunectl/jobs; where it does not answer, the last record is shown. The console's
page Jobs shows these records and asks no cluster.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tunectl.artifacts.paths import ProjectPaths

if TYPE_CHECKING:
    from tunectl.console.screens.jobs import JobRow


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl submit status`` to ``parser``."""
    parser.add_argument("id", nargs="?", help="one job, or the beginning of its id")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Ask the cluster of each job for its state, record it, and print all; return the exit code."""
    from msgspec import to_builtins

    from tunectl.backends.system import terminal
    from tunectl.console.read_context import ReadContext
    from tunectl.console.screens.jobs import read_jobs
    from tunectl.jobs import job_records

    layout, now = ProjectPaths(), datetime.now(UTC)
    only = job_records.find_job(layout.jobs, args.id).id if args.id else ""
    problems = _ask_clusters(layout, [only] if only else job_records.list_ids(layout.jobs), now)
    screen = read_jobs(ReadContext(layout, now), {"job": only}, size=None)
    problems = screen.problems | problems
    if args.json:
        terminal.print_json(to_builtins(screen) | {"problems": problems})
        return 0
    if not screen.jobs and not problems:
        terminal.print_line("no jobs yet: tunectl submit run STAGE")
        return 0
    columns = ["job", "stages", "state", "cluster", "its id", "commit", "sent (UTC)"]
    terminal.table("", columns, [_cells(job, now) for job in screen.jobs])
    for job in screen.jobs:
        if job.reason:
            terminal.print_line(f"{job.id} waits: {job.reason}")
    for part, problem in problems.items():
        terminal.print_line(f"{part.removeprefix('job ')}: {problem}")
    return 0


def _ask_clusters(layout: ProjectPaths, names: list[str], now: datetime) -> dict[str, str]:
    """Ask for the state of each job and record it; return what went wrong, by job: an unreachable cluster must not hide the jobs of another."""
    from tunectl.core.errors import TunectlError
    from tunectl.jobs import job_records
    from tunectl.pipeline import job_submission

    problems = {}
    for name in names:
        try:
            job_submission.observe_job(layout, job_records.read_job(layout.jobs, name), now)
        except TunectlError as error:
            problems[f"job {name}"] = str(error)
    return problems


def _cells(job: JobRow, now: datetime) -> list[str]:
    seen = "" if job.seen_at is None else job.seen_at[:16].replace("T", " ")
    state = job.state if seen == f"{now:%Y-%m-%d %H:%M}" or not seen else f"{job.state} ({seen})"
    return [
        job.id,
        " ".join(job.stages),
        state,
        job.to,
        job.scheduler_id,
        job.commit[:12],
        job.submitted_at[:16],
    ]

"""``tunectl submit status``: the jobs of this project, the newest first, with their states on the clusters.

tunectl submit status [ID] [--json]

States: pending, running, finished, failed, canceled, lost (the cluster does not know it any more).
"""

from __future__ import annotations

import argparse

from tunectl.artifacts.paths import ProjectPaths


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl submit status`` to ``parser``."""
    parser.add_argument("id", nargs="?", help="one job, or the beginning of its id")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the state of each job, as its cluster reports it; return the exit code."""
    from msgspec import to_builtins

    from tunectl.backends.system import terminal
    from tunectl.core.errors import InfrastructureError
    from tunectl.jobs import job_records
    from tunectl.pipeline import job_submission

    jobs = ProjectPaths().jobs
    records = [job_records.find_job(jobs, args.id)] if args.id else job_records.list_jobs(jobs)
    states, reasons, problems = [], [], []
    for record in records:
        try:
            state = job_submission.read_state(record)
            reason = job_submission.read_reason(record, state)
        except InfrastructureError as error:  # an unreachable cluster must not hide the jobs of another
            state, reason = "unknown", ""
            problems.append(f"{record.id}: {error}")
        states.append(state)
        reasons.append(reason)
    if args.json:
        listed = [
            {**to_builtins(record), "state": state, "reason": reason}
            for record, state, reason in zip(records, states, reasons, strict=True)
        ]
        terminal.print_json({"jobs": listed, "problems": problems})
        return 0
    if not records:
        terminal.print_line("no jobs yet: tunectl submit run STAGE")
        return 0
    columns = ["job", "stages", "state", "cluster", "its id", "commit", "sent (UTC)"]
    rows = [
        [
            record.id,
            " ".join(record.stages),
            state,
            record.to,
            record.scheduler_id,
            record.commit[:12],
            record.submitted_at[:16],
        ]
        for record, state in zip(records, states, strict=True)
    ]
    terminal.table("", columns, rows)
    for record, reason in zip(records, reasons, strict=True):
        if reason:
            terminal.print_line(f"{record.id} waits: {reason}")
    for problem in problems:
        terminal.print_line(problem)
    return 0

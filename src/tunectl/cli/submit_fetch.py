"""``tunectl submit fetch``: bring the results of a job from the DVC remote; no stage runs here.

tunectl submit fetch ID        then dvc repro says that nothing changed

The project must be at the job's commit.
"""

from __future__ import annotations

import argparse

from tunectl.artifacts.paths import ProjectPaths


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl submit fetch`` to ``parser``."""
    parser.add_argument("id", help="the job, or the beginning of its id")


def run(args: argparse.Namespace) -> int:
    """Fetch the results of a job from the DVC remote; return the exit code.

    Raises  UsageError at another commit; InfrastructureError where the job has not finished, and from the remote.
    """
    from tunectl.backends.system import terminal
    from tunectl.jobs import job_records
    from tunectl.pipeline import job_submission

    layout = ProjectPaths()
    record = job_records.find_job(layout.jobs, args.id)
    job_submission.fetch_results(layout, record)
    terminal.print_line(f"{' '.join(record.stages)}: as {record.id} built it; tunectl repro has nothing to do for it")
    terminal.print_line("commit: dvc.lock, artifacts/config, artifacts/metrics")
    return 0

"""``tunectl submit cancel``: end a job. Its checkpoints stay in its folder, and finished stages in the DVC remote.

tunectl submit cancel ID
"""

from __future__ import annotations

import argparse

from tunectl.artifacts.paths import ProjectPaths


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl submit cancel`` to ``parser``."""
    parser.add_argument("id", help="the job, or the beginning of its id")


def run(args: argparse.Namespace) -> int:
    """Cancel a job on its cluster; return the exit code.

    Raises  InfrastructureError where its cluster cannot be asked.
    """
    from tunectl.backends.system import terminal
    from tunectl.jobs import job_records
    from tunectl.pipeline import job_submission

    layout = ProjectPaths()
    record = job_records.find_job(layout.jobs, args.id)
    job_submission.cancel_job(layout, record)
    terminal.print_line(f"{record.id}: canceled")
    return 0

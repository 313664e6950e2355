"""``tunectl submit logs``: print what a job printed.

tunectl submit logs ID [-f]
"""

from __future__ import annotations

import argparse

from tunectl.artifacts.paths import ProjectPaths


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl submit logs`` to ``parser``."""
    parser.add_argument("id", help="the job, or the beginning of its id")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as it prints, until Ctrl-C")


def run(args: argparse.Namespace) -> int:
    """Print the output of a job with its cluster's own program; return 0, or 5 where that program failed.

    Raises  InfrastructureError where that program is not installed, or nothing was printed yet.
    """
    import subprocess

    from tunectl.core.errors import InfrastructureError
    from tunectl.jobs import job_records
    from tunectl.pipeline import job_submission

    record = job_records.find_job(ProjectPaths().jobs, args.id)
    command = job_submission.build_log_command(record, follow=args.follow)
    return InfrastructureError.exit_code if subprocess.run(command, check=False).returncode else 0

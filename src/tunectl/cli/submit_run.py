"""``tunectl submit run``: send a job that builds stages of the commit that is checked out.

tunectl submit run sft                                   to the cluster of conf/submit
tunectl submit run sft --to kubernetes --dry-run         print the manifest, send nothing
tunectl submit run sft evaluate submit.gpus=8 launch=torchrun

The commit must be pushed, and .dvc/config must name a remote. submit.KEY=VALUE and launch... hold for this job; any other setting
is the commit's, so that the results are the same build at home.
"""

from __future__ import annotations

import argparse
import sys

from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import UsageError


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl submit run`` to ``parser``."""
    parser.add_argument(
        "arguments",
        nargs="+",
        metavar="STAGE | key=value",
        help="stages to build; submit.KEY=VALUE and launch... of this job",
    )
    parser.add_argument("--to", choices=("slurm", "kubernetes", "ray"), help="another cluster than submit.to")
    parser.add_argument("--dry-run", action="store_true", help="print the file of the job, and send nothing")


def run(args: argparse.Namespace) -> int:
    """Check the settings, then print the job's file or send the job; return the exit code.

    Raises  UsageError and ConfigError before anything is sent; InfrastructureError from the remote and the scheduler.
    """
    from tunectl.backends.system import terminal
    from tunectl.pipeline import job_submission

    layout = ProjectPaths()
    stages = [argument for argument in args.arguments if "=" not in argument]
    overrides = [argument for argument in args.arguments if "=" in argument] + (
        [f"submit.to={args.to}"] if args.to else []
    )
    if not stages:
        raise UsageError("submit run needs a stage to build", hint="tunectl submit run sft")
    job = job_submission.plan_job(layout, stages, overrides)
    if args.dry_run:
        sys.stdout.write(job.text)
        return 0
    record = job_submission.send_job(layout, job)
    terminal.print_line(f"{record.id}: sent to {record.to} as {record.scheduler_id}")
    terminal.print_line(f"next: tunectl submit status; when it has finished: tunectl submit fetch {record.id}")
    return 0

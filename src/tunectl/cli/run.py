"""Run one stage, as dvc.yaml does.

The stage gets its resolved configuration, the finished artifacts of the stages that it reads, and a fresh folder. That folder
replaces the old artifact only when the stage succeeds; the manifest is written last. With --join the first machine runs the stage, and this machine joins its training processes.
"""

from __future__ import annotations

import argparse

from tunectl.artifacts.paths import ProjectPaths
from tunectl.pipeline import runner


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl run`` to ``parser``."""
    parser.add_argument("stage", help="a stage of dvc.yaml; tunectl status lists them")
    parser.add_argument(
        "--join", action="store_true", help="join the training of this stage from another machine (launch.nnodes)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the stage named in the arguments, or with ``--join`` take part in its training; return the exit code."""
    if args.join:
        runner.join_stage(ProjectPaths(), args.stage)
    else:
        runner.execute_stage(ProjectPaths(), args.stage)
    return 0

"""Run one stage, as dvc.yaml does.

The stage gets its resolved configuration, the finished artifacts of the stages that it reads, and a fresh folder. That folder
replaces the old artifact only when the stage succeeds; the manifest is written last.
"""

from __future__ import annotations

import argparse

from tunectl.artifacts.paths import ProjectPaths
from tunectl.pipeline import runner


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("stage", help="a stage of dvc.yaml; tunectl status lists them")


def run(args: argparse.Namespace) -> int:
    """Run the stage that was named."""
    runner.execute_stage(ProjectPaths(), args.stage)
    return 0

"""Run DVC with a check of what its remote says: ``tunectl dvc pull --run-cache`` in place of ``dvc pull --run-cache``.

Takes DVC's own arguments, and ends with its exit code. A folder's list that names files elsewhere, a digest that is a path,
or a run with outputs of no stage is refused; plain dvc takes them, so who may write to the remote could write any file of this
account. What DVC starts beside itself (exp run with --queue or --temp) runs without the check.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    """Add the positional arguments of ``tunectl dvc`` to ``parser``."""
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGUMENTS", help="a command of DVC, as pull")


def run(args: argparse.Namespace) -> int:
    """Replace this process by DVC with its guards, so signals and the exit code are DVC's.

    Raises  MissingExtraError without DVC; UsageError outside a project.
    """
    from tunectl.backends.vcs import dvc_repo

    command, environment = dvc_repo.build_command(Path())
    sys.stdout.flush()
    os.execve(command[0], [*command, *args.arguments[1:]], environment)  # noqa: S606  no shell: a list of words

"""Check this machine: Python, cores, memory, disk, torch build, GPU, Git, Docker, ports, extras; each with what to do.

tunectl doctor           one row for each check; exit code 5 where a build would stop
tunectl doctor --json    the same as JSON

Which packages the recipe of a project needs: tunectl check.
"""

from __future__ import annotations

import argparse
from pathlib import Path

COLUMNS = ("check", "", "found", "what to do")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl doctor`` to ``parser``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Check this machine, and print one row per check; return the exit code.

    Raises  InfrastructureError where one of them is a problem.
    """
    from tunectl.backends.system import terminal
    from tunectl.pipeline.system_check import check_system, refuse_problems

    system_checks = check_system(Path())
    if args.json:
        terminal.print_json([item._asdict() for item in system_checks])
    else:
        terminal.table("", COLUMNS, [tuple(item) for item in system_checks])
    refuse_problems(system_checks)
    return 0

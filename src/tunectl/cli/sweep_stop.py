"""``tunectl sweep stop``: start no more trials of a sweep, on any machine; running ones end as usual.

tunectl sweep stop [NAME]        continue later with: tunectl sweep run
"""

from __future__ import annotations

import argparse

from tunectl.artifacts.paths import ProjectPaths


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl sweep stop`` to ``parser``."""
    parser.add_argument(
        "arguments", nargs="*", metavar="NAME | key=value", help="the sweep (sweep.name); sweep.storage=URL"
    )


def run(args: argparse.Namespace) -> int:
    """Mark a sweep as stopped, so that its workers start no more trials; return the exit code."""
    from tunectl.backends.system import terminal
    from tunectl.cli.sweep_show import open_named

    study, _ = open_named(ProjectPaths(), args.arguments)
    study.set_stopped(True)
    running = study.summarize().count("running")
    terminal.print_line(f"{study.name}: no more trials begin; {running} still running")
    return 0

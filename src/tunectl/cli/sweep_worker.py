"""``tunectl sweep worker``: run trials of a sweep that another machine began, until none is left.

tunectl sweep worker NAME [key=value]

It needs a checkout of the project with the commit of the sweep, the same sweep.storage (PostgreSQL), and the data: a DVC remote
or a shared cache. Settings of the space are the sweep's; key=value may set sweep.storage.
"""

from __future__ import annotations

import argparse

from tunectl.artifacts.paths import ProjectPaths


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl sweep worker`` to ``parser``."""
    parser.add_argument(
        "arguments", nargs="*", metavar="NAME | key=value", help="the sweep (sweep.name); sweep.storage=URL"
    )


def run(args: argparse.Namespace) -> int:
    """Run trials of a sweep that another machine began; return the exit code.

    Raises  UsageError where there is no such sweep; InfrastructureError where its storage or its commit is not here.
    """
    from tunectl.backends.system import terminal
    from tunectl.cli.sweep_show import open_named
    from tunectl.config.loading import checks
    from tunectl.pipeline import build_tracking, sweep_worker

    layout = ProjectPaths()
    study, _ = open_named(layout, args.arguments)
    track = checks.load_project_config(layout).root.track
    try:
        ended = sweep_worker.run_workers(layout, study, 1, terminal.print_line)
    finally:
        build_tracking.start_sync(layout, track)  # builds of trials wait in the spool of this checkout
    terminal.print_line(f"{study.name}: {ended} trials ended here")
    return 0

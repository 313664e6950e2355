"""``tunectl sweep show``: the trials of a sweep, the best first, and which setting matters. Read-only.

tunectl sweep show [NAME] [-n 20] [--plot FILE.html] [--json]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunectl.artifacts.paths import ProjectPaths
from tunectl.cli.number_args import parse_count
from tunectl.core.errors import UsageError

if TYPE_CHECKING:
    from tunectl.backends.sweeps.optuna_study import SweepStudy


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl sweep show`` to ``parser``."""
    parser.add_argument(
        "arguments", nargs="*", metavar="NAME | key=value", help="the sweep (sweep.name); sweep.storage=URL"
    )
    parser.add_argument("-n", "--number", type=parse_count, default=20, metavar="N", help="trials to print (20)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a page with the plots to this file")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print a sweep: its trials and which settings matter; return the exit code."""
    from tunectl.artifacts import atomic_io

    study, rest = open_named(ProjectPaths(), args.arguments)
    if rest:
        raise UsageError(f"{rest[0]}: sweep show takes one name", hint="tunectl sweep show NAME")
    if args.plot is not None:
        from tunectl.backends.reports import sweep

        atomic_io.write_text(args.plot, sweep.page(study.summarize(), study.section))
    print_summary(study, number=args.number, as_json=args.json, plot=args.plot)
    return 0


def print_summary(study: SweepStudy, *, number: int, as_json: bool = False, plot: Path | None = None) -> None:
    """Print at most ``number`` trials and the summary below, or everything as JSON; ``plot`` is the path of the page, to be printed."""
    from msgspec import to_builtins

    from tunectl.backends.system import terminal
    from tunectl.sweeps import sweep_report

    summary = study.summarize()
    if as_json:
        terminal.print_json(to_builtins(summary))
        return
    columns, rows = sweep_report.table(summary, study.section, number)
    terminal.table("", columns, rows)
    for line in sweep_report.summary_lines(summary, study.section):
        terminal.print_line(line)
    if plot is not None:
        terminal.print_line(f"plots: {plot}")


def open_named(layout: ProjectPaths, arguments: Sequence[str]) -> tuple[SweepStudy, list[str]]:
    """Return the sweep named by the first of ``arguments``, or by ``sweep.name``, and the arguments after the name.

    Raises  UsageError where there is no such sweep.
    """
    from tunectl.backends.sweeps import optuna_study
    from tunectl.pipeline import sweep_setup

    settings = [argument for argument in arguments if "=" in argument]
    names = [argument for argument in arguments if "=" not in argument]
    section, url = sweep_setup.read_storage(layout, settings)
    return optuna_study.open_study(url, names[0] if names else section.name, layout.root), names[1:]

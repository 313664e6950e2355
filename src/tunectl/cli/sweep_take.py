"""``tunectl sweep take``: write the settings of a trial to conf/overrides.yaml; the next tunectl repro builds with them.

tunectl sweep take [NAME]          of the best trial
tunectl sweep take NAME TRIAL      of another one, for example of a front
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunectl.artifacts import lock
from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import UsageError

if TYPE_CHECKING:
    from tunectl.sweeps.trial_records import SweepSummary, TrialSummary


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl sweep take`` to ``parser``."""
    parser.add_argument(
        "arguments",
        nargs="*",
        metavar="NAME [TRIAL] | key=value",
        help="the sweep (sweep.name), and the number of a trial",
    )


def run(args: argparse.Namespace) -> int:
    """Check the settings of a trial together with the recorded overrides, then record them; return the exit code.

    Raises  UsageError where no trial is best, or the one that was named did not end well; ConfigError where they do not fit;
            LockTimeoutError beside a build.
    """
    from tunectl.backends.system import terminal
    from tunectl.cli.sweep_show import open_named
    from tunectl.config.loading import checks, override_file

    layout = ProjectPaths()
    study, rest = open_named(layout, args.arguments)
    trial = choose_trial(study.summarize(), rest)
    new_overrides = [*study.definition.overrides, *trial.overrides]
    if not new_overrides:
        terminal.print_line(f"trial {trial.number} has the settings as they are: there is nothing to take over")
        return 0
    with lock.file_lock(layout.repro_lock, "tunectl sweep take"):  # a build reads and writes the file, too
        overrides = override_file.merge_overrides(override_file.load_overrides(layout), new_overrides)
        checks.load_config(layout, overrides)
        override_file.save_overrides(layout, overrides)
    terminal.print_line(f"{layout.overrides}: {' '.join(new_overrides)}")
    terminal.print_line("build with them: tunectl repro")
    return 0


def choose_trial(summary: SweepSummary, arguments: Sequence[str]) -> TrialSummary:
    """Return the trial whose number is in ``arguments``, or the best one.

    Raises  UsageError for a trial that is not complete, and without a number where no single trial is best.
    """
    if arguments and not arguments[0].isdecimal():
        raise UsageError(
            f"{arguments[0]}: not the number of a trial", hint=f"tunectl sweep show {summary.name} lists them"
        )
    if not arguments and len(summary.best) != 1:
        reason = (
            f"there are {len(summary.best)}: {', '.join(map(str, summary.best))}"
            if summary.best
            else "no trial has ended"
        )
        raise UsageError(
            f"sweep {summary.name} has no single best trial; {reason}", hint=f"tunectl sweep take {summary.name} TRIAL"
        )
    number = int(arguments[0]) if arguments else summary.best[0]
    trial = summary.find(number)
    if trial is None or trial.state != "complete":
        what = "does not exist" if trial is None else f"is {trial.state}"
        raise UsageError(
            f"trial {number} of {summary.name} {what}; only a complete trial can be taken",
            hint=f"choose one: tunectl sweep show {summary.name}",
        )
    return trial

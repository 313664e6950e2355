"""``tunectl sweep run``: start or resume the sweep of conf/sweep.

tunectl sweep run                                  as conf/sweep says
tunectl sweep run sweep.n_trials=40                more trials of the same sweep
tunectl sweep run sweep.name=short sft.epochs=1    another sweep, whose trials all have sft.epochs=1

A trial is a worktree of the commit that is checked out, and stages that it does not change come from DVC's cache. Ctrl-C stops;
the same command resumes, and interrupted trials resume from their checkpoints.
"""

from __future__ import annotations

import argparse

from tunectl.artifacts.paths import ProjectPaths


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl sweep run`` to ``parser``."""
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="sweep.KEY=VALUE of the sweep; others hold for every trial"
    )


def run(args: argparse.Namespace) -> int:
    """Check the configuration, then run trials of the sweep until none is left; return the exit code.

    Raises  ConfigError with file and line of every mistake in the space; UsageError for changes that are not committed.
    """
    import time

    from tunectl.backends.system import terminal
    from tunectl.backends.vcs import git_worktree
    from tunectl.cli.sweep_show import print_summary
    from tunectl.pipeline import build_tracking, sweep_setup, sweep_worker

    layout = ProjectPaths()
    plan = sweep_setup.load_plan(layout, args.overrides)
    study = sweep_setup.open_or_create(layout, plan)
    hours = plan.section.max_hours
    study.set_limits(plan.section, None if hours is None else time.time() + hours * 3600)
    study.set_stopped(False)
    if git_worktree.revision(layout.root) != study.definition.commit:
        terminal.print_line(
            f"{study.name} goes on with commit {study.definition.commit[:12]}, not with the one that is checked out"
        )
    try:
        sweep_worker.run_workers(layout, study, plan.section.workers, terminal.print_line, confirm=plan.section.confirm)
    finally:
        build_tracking.start_sync(layout, plan.track)  # builds of trials wait in the project's spool
    print_summary(study, number=10)
    return 0

"""Tune hyperparameters: trials are builds of this commit with values chosen by Optuna.

tunectl sweep run [key=value]      start or resume the sweep of conf/sweep
tunectl sweep worker [NAME]        run trials of a sweep that another machine began
tunectl sweep show [NAME]          table, front, importance; --plot FILE writes a page, --json prints all
tunectl sweep stop [NAME]          start no more trials; running ones end as usual
tunectl sweep take [NAME] [TRIAL]  write the settings of the best trial, or of another one, to conf/overrides.yaml
"""

from __future__ import annotations

import argparse
from importlib import import_module

VERBS = {
    "run": "start or resume the sweep of conf/sweep",
    "worker": "run trials of a sweep that another machine began",
    "show": "print trials, the best ones, and which setting matters",
    "stop": "start no more trials; running ones end as usual",
    "take": "write the settings of a trial to conf/overrides.yaml",
}


def add(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of ``tunectl sweep``, each with its own arguments, to ``parser``."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="|".join(VERBS))
    for name, text in VERBS.items():
        module = import_module(f"tunectl.cli.sweep_{name}")
        module.add(
            verbs.add_parser(
                name, help=text, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
            )
        )


def run(args: argparse.Namespace) -> int:
    """Run the subcommand of ``tunectl sweep``; return its exit code."""
    code: int = import_module(f"tunectl.cli.sweep_{args.verb}").run(args)
    return code

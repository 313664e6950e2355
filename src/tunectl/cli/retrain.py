"""Retrain on drift, on schedules or on request; gate, canary, promotion, rollback.

tunectl retrain controller              run the controller until stopped (--once: do what is due, then end)
tunectl retrain request -m "new shops"  ask it for a retrain with the newest traffic and feedback
tunectl retrain status                  the retrains: state, trigger, reason, since when

Every step of one retrain: tunectl release log RETRAIN.
"""

from __future__ import annotations

import argparse
from importlib import import_module

VERBS = {
    "controller": "run the retrain controller until stopped",
    "request": "ask the controller for a retrain; the same gates apply as after drift",
    "status": "print the retrains: state, trigger, reason, since when",
}


def add(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of ``tunectl retrain``, each with its own arguments, to ``parser``."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="|".join(VERBS))
    for name, text in VERBS.items():
        module = import_module(f"tunectl.cli.retrain_{name}")
        module.add(
            verbs.add_parser(
                name,
                help=text,
                description=module.__doc__,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )


def run(args: argparse.Namespace) -> int:
    """Run the subcommand of ``tunectl retrain``; return its exit code."""
    code: int = import_module(f"tunectl.cli.retrain_{args.verb}").run(args)
    return code

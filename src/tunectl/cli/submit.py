"""Build on a cluster: a job clones a pushed commit, builds stages of it, and sends the results to the DVC remote.

tunectl submit run STAGE... [--to slurm|kubernetes|ray] [--dry-run]    send a job, or print its file
tunectl submit status [ID]     jobs and their states; --json
tunectl submit logs ID         what a job printed; -f follows the output
tunectl submit fetch ID        bring the results; no stage runs here
tunectl submit cancel ID       end a job
"""

from __future__ import annotations

import argparse
from importlib import import_module

VERBS = {
    "run": "send a job that builds stages of the commit that is checked out",
    "status": "jobs that were sent from this project, and their states",
    "logs": "print what a job printed",
    "fetch": "bring the results of a job; no stage runs here",
    "cancel": "end a job; its checkpoints stay in its folder",
}


def add(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of ``tunectl submit``, each with its own arguments, to ``parser``."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="|".join(VERBS))
    for name, text in VERBS.items():
        module = import_module(f"tunectl.cli.submit_{name}")
        module.add(
            verbs.add_parser(
                name, help=text, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
            )
        )


def run(args: argparse.Namespace) -> int:
    """Run the subcommand of ``tunectl submit``; return its exit code."""
    code: int = import_module(f"tunectl.cli.submit_{args.verb}").run(args)
    return code

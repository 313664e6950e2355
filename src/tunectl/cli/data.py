"""Inspect the data.

tunectl data counts                     rows in = kept + rejected, over the whole pipeline
tunectl data report [--learning-curve]  one HTML page: lengths, sources, rejects, slices, splits; is there enough data?
tunectl data inspect                    which tokens of a real example are trained, and common mistakes
tunectl data show [STAGE]               rows of a stage
tunectl data rejects                    rejected rows, and why
tunectl data refresh                    whether the declared web pages have changed
tunectl data agreement                  agreement of the people who compared answers
tunectl data lineage ID                 the sources of an answer, a release or a row, and what was made of a row

What a served model was asked and answered: tunectl log.
"""

from __future__ import annotations

import argparse
from importlib import import_module

VERBS = {
    "counts": "check that rows in = kept + rejected in every stage, and that nothing is lost between two",
    "report": "write one self-contained HTML page about the data",
    "inspect": "show which tokens of a real example are trained, and check for the usual mistakes",
    "show": "print rows of a stage",
    "rejects": "print rejected rows by reason",
    "refresh": "ask whether declared pages of the web changed, so that the next repro reads those again",
    "agreement": "measure how far people agree about answers, and what sways them",
    "lineage": "from an answer or a release back to raw rows, from a row forward",
}


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl data`` to ``parser``."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="|".join(VERBS))
    for name, text in VERBS.items():
        import_module(f"tunectl.cli.data_{name}").add(verbs.add_parser(name, help=text, description=text))


def run(args: argparse.Namespace) -> int:
    """Run the subcommand of ``tunectl data``; return its exit code."""
    code: int = import_module(f"tunectl.cli.data_{args.verb}").run(args)
    return code

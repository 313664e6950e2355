"""Look at the data.

tunectl data account            rows in = kept + rejected, over the whole pipeline
tunectl data report [--curve]   one HTML page: lengths, sources, rejects, who is in it, splits; do I have enough?
tunectl data show [STAGE]       rows of a stage, readable
tunectl data rejects            what did not go on, and why
tunectl data refresh            have the declared pages of the web changed?
tunectl data agreement          do the people who compared answers agree?
tunectl data lineage ID         where an answer, a release or a row comes from, and where a row went
tunectl data live [VERB]        what a served model was asked and answered: look, export, forget, retain, purge
"""

from __future__ import annotations

import argparse
from importlib import import_module

VERBS = {
    "account": "check that rows in = kept + rejected in every stage, and that nothing is lost between two",
    "report": "write one self-contained HTML page about the data",
    "show": "print rows of a stage",
    "rejects": "print rejected rows by reason",
    "refresh": "ask whether declared pages of the web changed, so that the next repro reads those again",
    "agreement": "measure how far people agree about answers, and what sways them",
    "lineage": "from an answer or a release back to raw rows, from a row forward",
    "live": "what a served model was asked and answered, and what people said: look, export, forget, retain, purge",
}


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the words of this verb."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="|".join(VERBS))
    for name, text in VERBS.items():
        import_module(f"tunectl.cli.data_{name}").add(verbs.add_parser(name, help=text, description=text))


def run(args: argparse.Namespace) -> int:
    """Hand over to the verb that was typed."""
    code: int = import_module(f"tunectl.cli.data_{args.verb}").run(args)
    return code

"""Releases: what was packaged, which one is the champion, and what it is made of.

tunectl release list                 all releases, the champion marked
tunectl release show ID              one release: metrics, verdicts, lineage, files
tunectl release propose ID --why ..  let tunectl watch put it through gate and canary, as it does with what it built itself
tunectl release promote ID --why ..  make it the champion; running servers follow within their polling time
tunectl release rollback --why ..    back to the champion before it
tunectl release log [RETRAIN]        what happened, in order, and the whole story of a retrain; --page FILE writes it as a page
tunectl release experiment start ID  try a release on a share of the live traffic; status, stop, plan
tunectl release diff A B             what changed from one release to another
tunectl release verify [ID ...]      compare every file with its recorded SHA-256

ID is the beginning of a release's name, or champion, or previous. Also: add, tag (GTO) and push (Hugging Face Hub).
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

VERBS = {
    "list": "all releases, the champion marked",
    "show": "one release: metrics, verdicts, lineage, files",
    "log": "what happened, in order; the story of each retrain",
    "diff": "what changed from one release to another",
    "verify": "compare every file with its recorded SHA-256; exit 5 where one differs",
    "add": "put the package that repro built into the store (repro does it by itself)",
    "propose": "let tunectl watch put a release through gate and canary; nothing is trained",
    "promote": "make a release the champion",
    "rollback": "make the champion before this one champion again",
    "experiment": "try a release on live traffic, with a test that may be looked at at any time",
    "tag": "name a release in Git, as GTO does",
    "push": "upload adapter, tokenizer and model card to the Hugging Face Hub",
}
LOOKS = ("list", "show", "diff", "verify")


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the words of this verb."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="|".join(VERBS))
    for name, text in VERBS.items():
        own = verbs.add_parser(name, help=text, description=text)
        own.add_argument("--store", type=Path, metavar="DIR", help="the store of releases (.tunectl/releases)")
        own.add_argument("--json", action="store_true", help="print JSON")
        _module(name).declare(name, own)


def run(args: argparse.Namespace) -> int:
    """Hand over to the verb that was typed."""
    from tunectl.artifacts.layout import Layout
    from tunectl.release.store import Store

    code: int = getattr(_module(args.verb), f"run_{args.verb}")(args, Store(args.store or Layout().releases))
    return code


def _module(verb: str) -> Any:
    kind = verb if verb == "experiment" else "log" if verb == "log" else "look" if verb in LOOKS else "change"
    return import_module(f"tunectl.cli.release_{kind}")

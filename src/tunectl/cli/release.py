"""Releases: what was packaged, which one is the champion, and what it is made of.

tunectl release list                 all releases, the champion marked
tunectl release show ID              one release: metrics, verdicts, lineage, files
tunectl release propose ID --why ..  let tunectl watch put it through gate and canary, as it does with what it built itself
tunectl release promote ID --why ..  make it the champion; running servers follow (--wait URL: until that one has)
tunectl release rollback --why ..    back to the champion before it
tunectl release challenge ID --share 0.1    put it beside the champion, for a tenth of the people; withdraw ends that
tunectl release experiment start ID  the same with a test that decides; status, stop, plan
tunectl release log [RETRAIN]        what happened, in order, and the whole story of a retrain; --page FILE writes it as a page
tunectl release diff A B             what changed from one release to another
tunectl release verify [ID ...]      compare every file with its recorded SHA-256

ID is the beginning of a release's name, or champion, previous or challenger. Also: add, tag (GTO), push (Hugging Face Hub), and
sync ADDRESS, which copies releases and pointers to s3://bucket/folder, where servers with serve.registry=ADDRESS look.
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
    "challenge": "put a release beside the champion, for a share of the people and for whoever asks for it",
    "withdraw": "end that",
    "experiment": "try a release on live traffic, with a test that may be looked at at any time",
    "tag": "name a release in Git, as GTO does",
    "sync": "copy releases and pointers to an address where servers look: s3://bucket/folder",
    "push": "upload adapter, tokenizer and model card to the Hugging Face Hub",
}
LOOKS = ("list", "show", "diff", "verify")


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the words of this verb."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="|".join(VERBS))
    for name, text in VERBS.items():
        own = verbs.add_parser(name, help=text, description=text)
        own.add_argument("--store", metavar="DIR", help="the store of releases (.tunectl/releases)")
        own.add_argument("--json", action="store_true", help="print JSON")
        _module(name).add_parser(name, own)


def run(args: argparse.Namespace) -> int:
    """Hand over to the verb that was typed."""
    from tunectl.artifacts.paths import ProjectPaths
    from tunectl.core.errors import UsageError
    from tunectl.registry.release_store import ReleaseRegistry

    if args.store is not None and "://" in args.store:
        raise UsageError(
            f"--store {args.store}: takes a folder", hint=f"copy yours there: tunectl release sync {args.store}"
        )

    code: int = getattr(_module(args.verb), f"run_{args.verb}")(
        args, ReleaseRegistry(Path(args.store) if args.store else ProjectPaths().releases)
    )
    return code


def _module(verb: str) -> Any:
    kind = verb if verb in {"experiment", "log"} else "look" if verb in LOOKS else "change"
    return import_module(f"tunectl.cli.release_{kind}")

"""Releases: packaged models, the champion, and their lineage.

tunectl release list                 all releases, the champion marked
tunectl release show ID              one release: metrics, verdicts, lineage, files
tunectl release propose ID -m ..     ask the retrain controller to run gate and canary on it, as on its own builds
tunectl release promote ID -m ..     make it the champion; running servers follow (--wait URL: until that one has)
tunectl release rollback -m ..       promote the champion before this one again
tunectl release canary start ID      serve it to a share of the users, with a test that decides; status, stop, plan
                                     (--no-test: no test, until canary stop)
tunectl release log [RETRAIN]        the release history, or every step of one retrain; --page FILE writes it as a page
tunectl release diff A B             what changed from one release to another
tunectl release verify [ID ...]      compare every file with its recorded SHA-256, and its signature
tunectl release keygen NAME --role release|pointer    make a key; sign [ID ...] vouches with it, revoke NAME ends it

ID is the beginning of a release's name, or champion, previous or challenger. Also: add, tag (GTO), push (Hugging Face Hub), and
sync ADDRESS, which copies releases and pointers to s3://bucket/folder, where servers with serve.registry=ADDRESS look. Where another
machine wrote to the address, sync changes nothing and says so: pull ADDRESS adopts its history; where both have gone on,
sync ADDRESS --keep ours|theirs -m .. keeps one champion under a higher sequence.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

VERBS = {
    "list": "all releases, the champion marked",
    "show": "one release: metrics, verdicts, lineage, files",
    "log": "the release history: additions, promotions, rollbacks, canaries and retrains",
    "diff": "what changed from one release to another",
    "verify": "compare every file with its recorded SHA-256, and its signature; exit 5 where one differs",
    "sign": "vouch for a release with a key of role release: a statement beside its folder",
    "keygen": "make a key of role release or pointer, and add its public half to the trusted keys",
    "revoke": "let a trusted key vouch for nothing any more",
    "add": "put the package that repro built into the store (repro does it by itself)",
    "propose": "ask the retrain controller to put a release through gate and canary; nothing is trained",
    "promote": "make a release the champion",
    "rollback": "promote the champion before this one again",
    "canary": "serve a release to a share of the users beside the champion, with a sequential test or without",
    "tag": "tag a release in Git, as GTO does",
    "sync": "copy releases and pointers to an address where servers look: s3://bucket/folder",
    "pull": "adopt the release history at an address, where another machine wrote, with its champion and canary",
    "push": "upload adapter, tokenizer and model card to the Hugging Face Hub",
}
READ_ONLY = ("list", "show", "diff", "verify")
SIGNING = ("sign", "keygen", "revoke")
TRUSTING = ("promote", "rollback", "canary", "verify", "sync", "pull")
"""Subcommands that check signatures where ``serve.trusted_keys_file`` names keys."""
MOVING = ("add", "promote", "rollback", "canary")
"""Subcommands that change what a model registry mirrors."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl release`` to ``parser``."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="|".join(VERBS))
    for name, text in VERBS.items():
        own = verbs.add_parser(name, help=text, description=text)
        own.add_argument("--store", metavar="DIR", help="folder of the registry (.tunectl/releases)")
        own.add_argument("--json", action="store_true", help="print JSON")
        _module(name).add_parser(name, own)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand of ``tunectl release``; return its exit code."""
    from tunectl.artifacts.paths import ProjectPaths
    from tunectl.core.errors import UsageError
    from tunectl.registry.release_store import ReleaseRegistry

    if args.store is not None and "://" in args.store:
        raise UsageError(
            f"--store {args.store}: must be a folder, not an address",
            hint=f"leave --store out; fetch what is there: tunectl release pull {args.store}; copy yours there: tunectl release sync {args.store}",
        )

    trust = None
    if args.verb in TRUSTING:
        from tunectl.pipeline.trusted_keys import open_trust

        trust = open_trust(ProjectPaths())
    store = ReleaseRegistry(Path(args.store) if args.store else ProjectPaths().releases, trust=trust)
    try:
        code: int = getattr(_module(args.verb), f"run_{args.verb}")(args, store)
    finally:  # a promotion whose servers do not follow is a promotion all the same
        if args.verb in MOVING and args.store is None:
            from tunectl.pipeline.build_tracking import mirror_releases

            mirror_releases(ProjectPaths())
    return code


def _module(verb: str) -> Any:
    """Return the module with ``run_VERB``: release_sign, release_canary, release_log, release_show, or release_update for the rest."""
    kind = (
        "sign" if verb in SIGNING else verb if verb in {"canary", "log"} else "show" if verb in READ_ONLY else "update"
    )
    return import_module(f"tunectl.cli.release_{kind}")

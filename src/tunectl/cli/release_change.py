"""``tunectl release add|propose|promote|rollback|tag|push``: what changes a store, or tells others about it."""

from __future__ import annotations

import argparse
import getpass
from pathlib import Path
from typing import TYPE_CHECKING

from tunectl.core.errors import UsageError

if TYPE_CHECKING:
    from tunectl.artifacts.layout import Layout
    from tunectl.release.history import Champion
    from tunectl.release.manifest import ReleaseManifest
    from tunectl.release.store import Store


def declare(verb: str, parser: argparse.ArgumentParser) -> None:
    """Declare the words of one verb."""
    if verb in {"propose", "promote", "tag", "push"}:
        if verb in {"propose", "promote"}:
            parser.add_argument("release", metavar="ID")
        else:
            parser.add_argument("release", metavar="ID", nargs="?", default="champion", help="(champion)")
    if verb == "propose":
        parser.add_argument("--why", default="", metavar="TEXT", help="kept in the record")
        parser.add_argument("--now", action="store_true", help="though cooldown or budget say no")
    if verb in {"add", "promote", "rollback"}:
        parser.add_argument("--why", default="", metavar="TEXT", help="kept in the log")
        parser.add_argument("--by", default="", metavar="WHO", help="kept in the log (the name of this account)")
    if verb == "promote":
        parser.add_argument("--force", action="store_true", help="though a gate said no")
        parser.add_argument("--tag", action="store_true", help="and name it in Git: tunectl release tag")
    if verb == "push":
        parser.add_argument("repo", metavar="OWNER/NAME", help="of the Hub; made where it is absent")
        parser.add_argument("--public", action="store_true", help="a new repository is private otherwise")


def run_add(args: argparse.Namespace, store: Store) -> int:
    """Put the package that was built into the store."""
    from tunectl.artifacts import manifest
    from tunectl.artifacts.layout import Layout
    from tunectl.backends import terminal

    layout = Layout()
    manifest.read(layout.artifact("package"))
    made = added(layout, store, by=args.by or _account(), why=args.why)
    if made is None:
        raise UsageError("package: none, so there is nothing to add", hint="package it: tunectl repro package=openvino")
    if args.json:
        terminal.print_json({"release": made.id, "folder": str(store.folder(made.id))})
    else:
        terminal.say(f"release {made.id}: {store.folder(made.id)}")
    return 0


def added(layout: Layout, store: Store, *, by: str, why: str) -> ReleaseManifest | None:
    """The release of ``artifacts/package`` in the store; None where that stage is switched off or made none."""
    from tunectl.artifacts import io
    from tunectl.backends import project_repo
    from tunectl.release.manifest import FACTS, RELEASE, Facts

    folder = layout.artifact("package")
    if not (folder / FACTS).is_file():
        return None
    facts: Facts = io.read_json(folder / FACTS, Facts)
    return store.add(folder / RELEASE, facts, by=by, why=why, git=project_repo.commit(layout.root))


def run_propose(args: argparse.Namespace, store: Store) -> int:
    """Leave a wish for the watcher."""
    from tunectl.artifacts.layout import Layout
    from tunectl.backends import terminal
    from tunectl.cli.watch import asked

    release = store.find(args.release)
    trigger, running = asked(Layout(), args.why or f"release {release} is proposed", urgent=args.now, release=release)
    if args.json:
        terminal.print_json({"trigger": trigger, "release": release, "watcher": running})
        return 0
    terminal.say(f"proposed {release}: its story will be in tunectl release log ({trigger})")
    terminal.say(
        "tunectl watch takes it up" if running else "no watcher runs here: tunectl watch takes it up when it begins"
    )
    return 0


def run_promote(args: argparse.Namespace, store: Store) -> int:
    """Swap the pointer."""
    before = store.champion()
    found = store.promote(store.find(args.release), by=args.by or _account(), why=args.why, force=args.force)
    _say(args, store, found, "champion already" if found == before else "promoted")
    if args.tag:
        _tag(store, found.release)
    return 0


def run_rollback(args: argparse.Namespace, store: Store) -> int:
    """Swap the pointer back."""
    _say(args, store, store.rollback(by=args.by or _account(), why=args.why), "rolled back to")
    return 0


def run_tag(args: argparse.Namespace, store: Store) -> int:
    """Register the release in Git; where it is the champion, assign that stage to it."""
    from tunectl.backends import terminal

    made = _tag(store, store.find(args.release))
    if args.json:
        terminal.print_json({"tags": made})
    return 0


def run_push(args: argparse.Namespace, store: Store) -> int:
    """Upload to the Hub."""
    from tunectl.backends import hub_push, terminal

    release = store.find(args.release)
    url = hub_push.push(store.folder(release), args.repo, private=not args.public, message=f"tunectl release {release}")
    if args.json:
        terminal.print_json({"release": release, "url": url})
    else:
        terminal.say(f"release {release}: {url}")
    return 0


def _tag(store: Store, release: str) -> list[str]:
    from tunectl.backends import gto_tags, terminal

    pointer, one = store.champion(), store.manifest(release)
    stage = "champion" if pointer is not None and pointer.release == release else None
    made = gto_tags.register(Path(), one.project, release=release, commit=one.git, stage=stage)
    terminal.say(f"git tags: {', '.join(made)}; share them with: git push --tags")
    return made


def _say(args: argparse.Namespace, store: Store, found: Champion, what: str) -> None:
    from tunectl.backends import terminal
    from tunectl.release.store import plain

    if args.json:
        terminal.print_json(plain(found))
        return
    below = f"; before it: {found.previous}" if found.previous else ""
    terminal.say(f"{what} {found.release}{below} ({store.root})")


def _account() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""

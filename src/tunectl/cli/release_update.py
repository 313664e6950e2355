"""``tunectl release add|propose|promote|rollback|tag|sync|pull|push``: change the registry, or copy it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunectl.core import user
from tunectl.core.errors import UsageError

if TYPE_CHECKING:
    from tunectl.artifacts.paths import ProjectPaths
    from tunectl.registry.release_manifest import ReleaseManifest
    from tunectl.registry.release_state import ChampionPointer
    from tunectl.registry.release_store import ReleaseRegistry


_ARGUMENTS: tuple[tuple[frozenset[str], tuple[str, ...], dict[str, Any]], ...] = (
    (frozenset(("propose", "promote")), ("release",), {"metavar": "ID"}),
    (
        frozenset(("tag", "push")),
        ("release",),
        {"metavar": "ID", "nargs": "?", "default": "champion", "help": "(champion)"},
    ),
    (
        frozenset(("add", "propose", "promote", "rollback", "sync")),
        ("-m", "--message"),
        {"default": "", "metavar": "TEXT", "help": "reason, for the release history"},
    ),
    (frozenset(("promote",)), ("--force",), {"action": "store_true", "help": "although a gate failed"}),
    (
        frozenset(("pull",)),
        ("--force",),
        {
            "action": "store_true",
            "help": "though promotions below the champion have the signature of a key that was revoked since, or are older than the keys",
        },
    ),
    (
        frozenset(("propose",)),
        ("--ignore-limits",),
        {"action": "store_true", "help": "start in spite of cooldown and budget"},
    ),
    (
        frozenset(("promote", "rollback")),
        ("--wait",),
        {
            "action": "append",
            "default": [],
            "metavar": "URL",
            "help": "of a server, until it serves that; may be repeated",
        },
    ),
    (
        frozenset(("promote", "rollback")),
        ("--seconds",),
        {"type": float, "default": 120.0, "metavar": "N", "help": "with --wait, at most (120)"},
    ),
    (frozenset(("promote",)), ("--tag",), {"action": "store_true", "help": "and name it in Git: tunectl release tag"}),
    (
        frozenset(("sync", "pull")),
        ("address",),
        {"metavar": "ADDRESS", "help": "s3://bucket/folder, or another kind that fsspec knows"},
    ),
    (
        frozenset(("sync",)),
        ("--keep",),
        {
            "choices": ("ours", "theirs"),
            "help": "where both histories have gone on: promote this registry's champion (ours) or the one at the address (theirs)"
            " once more, with a higher sequence than either; -m says why",
        },
    ),
    (frozenset(("push",)), ("repo",), {"metavar": "OWNER/NAME", "help": "of the Hub; made where it is absent"}),
    (frozenset(("push",)), ("--public",), {"action": "store_true", "help": "a new repository is private otherwise"}),
)
"""Subcommands, the argument that they take, and its declaration for argparse."""


def add_parser(verb: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the subcommand ``verb``."""
    for verbs, names, declaration in _ARGUMENTS:
        if verb in verbs:
            parser.add_argument(*names, **declaration)


def run_add(args: argparse.Namespace, store: ReleaseRegistry) -> int:
    """Add the release of the stage package to the registry; return the exit code."""
    from tunectl.artifacts import manifest
    from tunectl.artifacts.paths import ProjectPaths
    from tunectl.backends.system import terminal

    layout = ProjectPaths()
    manifest.read(layout.artifact("package"))
    new_release = add_packaged(layout, store, author=user.current_user(), message=args.message)
    if new_release is None:
        raise UsageError(
            "the stage package is switched off (package=none), so there is no release to add",
            hint="package it: tunectl repro package=openvino",
        )
    if args.json:
        terminal.print_json({"release": new_release.id, "folder": str(store.folder(new_release.id))})
    else:
        terminal.print_line(f"release {new_release.id}: {store.folder(new_release.id)}")
    return 0


def add_packaged(layout: ProjectPaths, store: ReleaseRegistry, *, author: str, message: str) -> ReleaseManifest | None:
    """Add the release in ``artifacts/package`` to the registry and return its manifest; None if that stage is off or made none."""
    from tunectl.artifacts import atomic_io
    from tunectl.backends.vcs import project_repo
    from tunectl.registry.release_manifest import FACTS, RELEASE, BuildFacts

    folder = layout.artifact("package")
    if not (folder / FACTS).is_file():
        return None
    facts: BuildFacts = atomic_io.read_json(folder / FACTS, BuildFacts)
    return store.add(folder / RELEASE, facts, author=author, message=message, git=project_repo.head_commit(layout.root))


def run_propose(args: argparse.Namespace, store: ReleaseRegistry) -> int:
    """Ask the retrain controller to put a release through gate and canary; return the exit code."""
    from tunectl.artifacts.paths import ProjectPaths
    from tunectl.backends.system import terminal
    from tunectl.cli.retrain_request import describe_controller
    from tunectl.retraining.manual_trigger import request_retrain

    release = store.find(args.release)
    trigger, running = request_retrain(
        ProjectPaths(),
        args.message or f"release {release} is proposed",
        ignore_limits=args.ignore_limits,
        release=release,
    )
    if args.json:
        terminal.print_json({"trigger": trigger, "release": release, "controller": running})
        return 0
    terminal.print_line(f"proposed {release}: its steps will be in tunectl release log ({trigger})")
    terminal.print_line(describe_controller(running))
    return 0


def run_promote(args: argparse.Namespace, store: ReleaseRegistry) -> int:
    """Make a release the champion, so that servers load it; return the exit code."""
    from tunectl.cli import release_wait
    from tunectl.registry import signature_policy

    release_wait.refuse_addresses(args.wait, args.seconds)
    before = store.champion()
    author = signature_policy.choose_author(store, user.current_user())
    result = store.promote(store.find(args.release), author=author, message=args.message, force=args.force)
    tags = _tag(store, result.release) if args.tag else None
    _print_pointer(args, store, result, "champion already" if result == before else "promoted", tags)
    _wait(args, result.release)
    return 0


def run_rollback(args: argparse.Namespace, store: ReleaseRegistry) -> int:
    """Make the previous champion the champion again; return the exit code."""
    from tunectl.cli import release_wait
    from tunectl.registry import signature_policy

    release_wait.refuse_addresses(args.wait, args.seconds)
    author = signature_policy.choose_author(store, user.current_user())
    pointer = store.rollback(author=author, message=args.message)
    _print_pointer(args, store, pointer, "rolled back to")
    _wait(args, pointer.release)
    return 0


def _wait(args: argparse.Namespace, release: str) -> None:
    """Wait until the named servers serve the release."""
    from tunectl.backends.system import terminal
    from tunectl.cli import release_wait

    if not args.wait:
        if not args.json:
            terminal.print_line("servers that look there follow by themselves; --wait URL tells when one of them has")
        return

    took = release_wait.wait_until_ready(args.wait, release, args.seconds)
    if not args.json:
        terminal.print_line(f"{len(args.wait)} of {len(args.wait)} servers serve it, after {took:.1f} s")


def run_tag(args: argparse.Namespace, store: ReleaseRegistry) -> int:
    """Register the release in Git with GTO, and if it is the champion, assign that stage to it; return the exit code."""
    from tunectl.backends.system import terminal

    tags = _tag(store, store.find(args.release))
    if args.json:
        terminal.print_json({"tags": tags})
    else:
        terminal.print_line(_describe_tags(tags))
    return 0


def run_sync(args: argparse.Namespace, store: ReleaseRegistry) -> int:
    """Copy releases and pointers to an object store, with ``--keep`` after resolving a fork; return the exit code."""
    from tunectl.backends.storage.object_store import FsspecObjectStore
    from tunectl.backends.system import terminal
    from tunectl.core import user
    from tunectl.registry import remote_sync, signature_policy

    files = FsspecObjectStore(args.address)
    if args.keep is None:
        copies = remote_sync.push(store, files)
    else:
        author = signature_policy.choose_author(store, user.current_user())
        copies = remote_sync.resolve(store, files, args.keep, author=author, message=args.message)
    pointer = store.champion()
    if args.json:
        terminal.print_json({"copied": copies, "champion": pointer.release if pointer else None})
        return 0
    note = f"; champion {pointer.release}" if pointer else ""
    terminal.print_line(f"{files.address}: {len(copies)} of {len(store.ids())} releases copied{note}")
    return 0


def run_pull(args: argparse.Namespace, store: ReleaseRegistry) -> int:
    """Adopt releases and events that another machine wrote to an object store; return the exit code."""
    from tunectl.backends.storage.object_store import FsspecObjectStore
    from tunectl.backends.system import terminal
    from tunectl.registry import remote_sync

    files = FsspecObjectStore(args.address)
    result, pointer = remote_sync.pull(store, files, force=args.force), store.champion()
    if args.json:
        terminal.print_json(
            {"events": result.events, "brought": result.releases, "champion": pointer.release if pointer else None}
        )
        return 0
    note = f"; champion {pointer.release}" if pointer else ""
    terminal.print_line(
        f"{files.address}: {result.events} events adopted, {len(result.releases)} releases brought{note}"
    )
    return 0


def run_push(args: argparse.Namespace, store: ReleaseRegistry) -> int:
    """Upload a release to the Hugging Face Hub; return the exit code."""
    from tunectl.backends.storage import hub_upload
    from tunectl.backends.system import terminal

    release = store.find(args.release)
    url = hub_upload.upload(
        store.folder(release), args.repo, private=not args.public, message=f"tunectl release {release}"
    )
    if args.json:
        terminal.print_json({"release": release, "url": url})
    else:
        terminal.print_line(f"release {release}: {url}")
    return 0


def _tag(store: ReleaseRegistry, release: str) -> list[str]:
    from tunectl.backends.vcs import gto_tags

    pointer, manifest = store.champion(), store.manifest(release)
    stage = "champion" if pointer is not None and pointer.release == release else None
    return gto_tags.register(Path(), manifest.project, release=release, commit=manifest.git, stage=stage)


def _describe_tags(tags: list[str]) -> str:
    return f"git tags: {', '.join(tags) or 'as before'}; share them with: git push --tags"


def _print_pointer(
    args: argparse.Namespace,
    store: ReleaseRegistry,
    pointer: ChampionPointer,
    description: str,
    tags: list[str] | None = None,
) -> None:
    from msgspec import to_builtins

    from tunectl.backends.system import terminal

    if args.json:
        terminal.print_json({**to_builtins(pointer), **({} if tags is None else {"tags": tags})})
        return
    below = f"; before it: {pointer.previous}" if pointer.previous else ""
    terminal.print_line(f"{description} {pointer.release}{below} ({store.root})")
    if tags is not None:
        terminal.print_line(_describe_tags(tags))

"""``tunectl release list|show|diff|verify``: print releases; change nothing and take no lock."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tunectl.core.errors import ArtifactError

if TYPE_CHECKING:
    from tunectl.registry.release_manifest import ReleaseManifest
    from tunectl.registry.release_store import ReleaseRegistry


def add_parser(verb: str, parser: argparse.ArgumentParser) -> None:
    """Declare the words of one verb."""
    if verb == "show":
        parser.add_argument("release", nargs="?", default="champion", metavar="ID", help="(champion)")
    elif verb == "diff":
        parser.add_argument("one", metavar="A")
        parser.add_argument("other", metavar="B", nargs="?", default="champion", help="(champion)")
    elif verb == "verify":
        parser.add_argument("releases", nargs="*", metavar="ID", help="(all)")


def run_list(args: argparse.Namespace, store: ReleaseRegistry) -> int:
    """Return all releases, the newest last; of a damaged one its name and what is wrong."""
    from tunectl.backends.system import terminal

    pointer = store.champion()
    trial = store.trial()
    names = {trial.release: f"challenger {trial.share:.0%}"} if trial else {}
    names |= {pointer.previous or "": "previous", pointer.release: "champion"} if pointer else {}
    found, damaged = _readable(store)
    if args.json:
        told = [{**_short(one), "role": names.get(one.id)} for one in found]
        terminal.print_json([*told, *({"release": name, "damaged": why} for name, why in damaged.items())])
        return 0
    for name, why in damaged.items():
        terminal.print_line(f"{name} is damaged: {why}")
    if not found and not damaged:
        terminal.print_line(f"{store.root}: no releases yet; make one: tunectl repro")
        return 0
    columns = ("release", "role", "created", "engine", "layout", "MB", "gates", "metrics")
    rows = [(*_cells(one, names.get(one.id, "")),) for one in found]
    terminal.table("", columns, rows)
    return 0


def _readable(store: ReleaseRegistry) -> tuple[list[ReleaseManifest], dict[str, str]]:
    """Return manifests, the oldest first, and why others cannot be read."""
    found, damaged = [], {}
    for name in store.ids():
        try:
            found.append(store.manifest(name))
        except ArtifactError as error:
            damaged[name] = error.message
    return found, damaged


def run_show(args: argparse.Namespace, store: ReleaseRegistry) -> int:
    """Return one release in full."""
    from tunectl.backends.system import terminal
    from tunectl.registry.release_store import to_builtins

    one = store.manifest(store.find(args.release))
    if args.json:
        terminal.print_json({**to_builtins(one), "folder": str(store.folder(one.id))})
        return 0
    rows = [(name, str(value)) for name, value in _short(one).items() if name not in {"metrics", "verdicts"}]
    rows += [(f"gate {stage}", f"{found.verdict}: {found.reason}") for stage, found in one.verdicts.items()]
    rows += [(name, f"{value:g}") for name, value in one.metrics.items()]
    if one.lineage is not None:
        rows += [("base", f"{one.lineage.base}, revision {one.lineage.revision[:12]}")]
        rows += [(f"data of {path}", (found or "none")[:12]) for path, found in one.lineage.sources.items()]
        rows += [(f"stage {stage}", found[:12]) for stage, found in one.lineage.stages.items()]
    rows += [("folder", str(store.folder(one.id)))]
    terminal.table("", ("what", "value"), rows)
    terminal.table("", ("file", "SHA-256"), [(name, found[:16]) for name, found in one.files.items()])
    return 0


def run_diff(args: argparse.Namespace, store: ReleaseRegistry) -> int:
    """Return the changes from one release to another."""
    from tunectl.backends.system import terminal
    from tunectl.registry import release_manifest

    one, other = (store.manifest(store.find(start)) for start in (args.one, args.other))
    found = release_manifest.diff(one, other)
    if args.json:
        terminal.print_json({"from": one.id, "to": other.id, **found})
        return 0
    rows = [
        (part, name, *([change, ""] if isinstance(change, str) else [_format_value(value) for value in change]))
        for part, changes in found.items()
        for name, change in changes.items()
    ]
    if not rows:
        terminal.print_line(f"{one.id} and {other.id} are the same")
        return 0
    terminal.table("", ("part", "name", one.id, other.id), rows)
    return 0


def run_verify(args: argparse.Namespace, store: ReleaseRegistry) -> int:
    """Compare files with their digests; exit 5 where something is wrong."""
    from tunectl.backends.system import terminal

    names = [store.find(start) for start in args.releases] or store.ids()
    wrong = {name: store.verify(name) for name in names}
    if args.json:
        terminal.print_json(wrong)
    else:
        for name, problems in wrong.items():
            terminal.print_line(f"{name}: {'; '.join(problems) or 'whole'}")
        if not names:
            terminal.print_line(f"{store.root}: no releases yet")
    return 5 if any(wrong.values()) else 0


def _short(one: ReleaseManifest) -> dict[str, Any]:
    return {
        "release": one.id,
        "created_at": one.created_at,
        "project": one.project,
        "parent": one.parent,
        "engine": one.engine,
        "layout": one.layout,
        "bytes": one.bytes,
        "git": one.git,
        "passed": not one.refusals,
        "metrics": one.metrics,
        "verdicts": {stage: found.verdict for stage, found in one.verdicts.items()},
    }


def _cells(one: ReleaseManifest, role: str) -> tuple[str, ...]:
    gates = "no" if one.refusals else "yes"
    metrics = ", ".join(f"{name} {value:g}" for name, value in list(one.metrics.items())[:3])
    return one.id, role, one.created_at[:16], one.engine, one.layout, f"{one.bytes / 1e6:.0f}", gates, metrics


def _format_value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)[:16]

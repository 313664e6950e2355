"""``tunectl release list|show|diff|verify``: print releases; change nothing and take no lock."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from msgspec import to_builtins

from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import ArtifactError

if TYPE_CHECKING:
    from tunectl.console.read_context import ReadContext
    from tunectl.registry.release_manifest import ReleaseManifest
    from tunectl.registry.release_store import ReleaseRegistry


def add_parser(verb: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the subcommand ``verb``."""
    if verb == "show":
        parser.add_argument("release", nargs="?", default="champion", metavar="ID", help="(champion)")
    elif verb == "diff":
        parser.add_argument("one", metavar="A")
        parser.add_argument("other", metavar="B", nargs="?", default="champion", help="(champion)")
    elif verb == "verify":
        parser.add_argument("releases", nargs="*", metavar="ID", help="(all)")


def run_list(args: argparse.Namespace, store: ReleaseRegistry) -> int:
    """Print all releases as a table or JSON, the newest last, damaged ones with what is wrong; return the exit code."""
    from tunectl.backends.system import terminal

    if args.json:
        from tunectl.console.screens.releases import read_releases

        terminal.print_json(to_builtins(read_releases(_open_context(), {}, store)))
        return 0
    pointer = store.champion()
    canary = store.canary()
    names = {canary.release: f"challenger {canary.share:.0%}"} if canary else {}
    names |= {pointer.previous or "": "previous", pointer.release: "champion"} if pointer else {}
    result, damaged = _read_manifests(store)
    for name, reason in damaged.items():
        terminal.print_line(f"{name} is damaged: {reason}")
    if not result and not damaged:
        terminal.print_line(f"{store.root}: no releases yet; make one: tunectl repro")
        return 0
    columns = ("release", "role", "created", "engine", "layout", "MB", "gates", "metrics")
    rows = [(*_cells(item, names.get(item.id, "")),) for item in result]
    terminal.table("", columns, rows)
    return 0


def _read_manifests(store: ReleaseRegistry) -> tuple[list[ReleaseManifest], dict[str, str]]:
    """Return manifests, the oldest first, and why others cannot be read."""
    result, damaged = [], {}
    for name in store.ids():
        try:
            result.append(store.manifest(name))
        except ArtifactError as error:
            damaged[name] = error.message
    return result, damaged


def run_show(args: argparse.Namespace, store: ReleaseRegistry) -> int:
    """Print one release: metrics, verdicts, lineage, files; return the exit code."""
    from tunectl.backends.system import terminal

    manifest = store.manifest(store.find(args.release))
    if args.json:
        from tunectl.console.screens.release import read_release

        terminal.print_json(to_builtins(read_release(_open_context(), {"release": manifest.id}, store)))
        return 0
    rows = [(name, str(value)) for name, value in _short(manifest).items() if name not in {"metrics", "verdicts"}]
    rows += [(f"gate {stage}", f"{verdict.verdict}: {verdict.reason}") for stage, verdict in manifest.verdicts.items()]
    rows += [(name, f"{value:g}") for name, value in manifest.metrics.items()]
    if manifest.lineage is not None:
        rows += [("base", f"{manifest.lineage.base}, revision {manifest.lineage.revision[:12]}")]
        rows += [(f"data of {path}", (source or "none")[:12]) for path, source in manifest.lineage.sources.items()]
        rows += [(f"stage {stage}", result[:12]) for stage, result in manifest.lineage.stages.items()]
    rows += [("folder", str(store.folder(manifest.id)))]
    terminal.table("", ("what", "value"), rows)
    terminal.table("", ("file", "SHA-256"), [(name, file[:16]) for name, file in manifest.files.items()])
    return 0


def _open_context() -> ReadContext:
    from tunectl.console.read_context import ReadContext

    return ReadContext(ProjectPaths(), datetime.now(UTC))


def run_diff(args: argparse.Namespace, store: ReleaseRegistry) -> int:
    """Print which settings, data and scores differ between two releases, as a table or JSON; return the exit code."""
    from tunectl.backends.system import terminal
    from tunectl.registry import release_manifest

    first, other = (store.manifest(store.find(start)) for start in (args.one, args.other))
    result = release_manifest.diff(first, other)
    if args.json:
        terminal.print_json({"from": first.id, "to": other.id, **result})
        return 0
    rows = [
        (part, name, *([change, ""] if isinstance(change, str) else [_format_value(value) for value in change]))
        for part, changes in result.items()
        for name, change in changes.items()
    ]
    if not rows:
        terminal.print_line(f"{first.id} and {other.id} are the same")
        return 0
    terminal.table("", ("part", "name", first.id, other.id), rows)
    return 0


def run_verify(args: argparse.Namespace, store: ReleaseRegistry) -> int:
    """Compare the files of releases with their recorded digests, and print the problems; return 5 if there are any, else 0."""
    from tunectl.backends.system import terminal
    from tunectl.registry import signature_policy

    names = [store.find(start) for start in args.releases] or store.ids()
    wrong = {name: [*store.verify(name), *signature_policy.find_signature_problems(store, name)] for name in names}
    if args.json:
        terminal.print_json(wrong)
    else:
        for name, problems in wrong.items():
            fine = ", ".join(filter(None, ("whole", signature_policy.describe_signature(store, name))))
            terminal.print_line(f"{name}: {'; '.join(problems) or fine}")
        if not names:
            terminal.print_line(f"{store.root}: no releases yet")
    return 5 if any(wrong.values()) else 0


def _short(manifest: ReleaseManifest) -> dict[str, Any]:
    return {
        "release": manifest.id,
        "created_at": manifest.created_at,
        "project": manifest.project,
        "parent": manifest.parent,
        "engine": manifest.engine,
        "layout": manifest.layout,
        "bytes": manifest.bytes,
        "git": manifest.git,
        "passed": not manifest.refusals,
        "metrics": manifest.metrics,
        "verdicts": {stage: verdict.verdict for stage, verdict in manifest.verdicts.items()},
    }


def _cells(manifest: ReleaseManifest, role: str) -> tuple[str, ...]:
    gates = "no" if manifest.refusals else "yes"
    metrics = ", ".join(f"{name} {value:g}" for name, value in list(manifest.metrics.items())[:3])
    return (
        manifest.id,
        role,
        manifest.created_at[:16],
        manifest.engine,
        manifest.layout,
        f"{manifest.bytes / 1e6:.0f}",
        gates,
        metrics,
    )


def _format_value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)[:16]

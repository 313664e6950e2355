"""Screen of one release: its gates, metrics, changes against the champion, lineage and history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct, field

from tunectl.console.read_context import NotFoundError, ProblemList, ReadContext
from tunectl.console.screens.releases import ReleaseSummary, ask_configured_servers, name_roles, summarize_release
from tunectl.console.server_state import ServerState
from tunectl.pipeline import run_ledger
from tunectl.registry import release_manifest
from tunectl.registry.release_manifest import ReleaseManifest
from tunectl.registry.release_state import ReleaseEvent
from tunectl.registry.release_store import ReleaseRegistry

RUNS: Final = 50
"""Number of newest runs among which the one that built a release is searched: older ones would cost a read each."""


class ReleaseScreen(Struct, frozen=True):
    """Content of the screen of one release: its manifest, lineage, and changes against the champion."""

    summary: ReleaseSummary
    manifest: ReleaseManifest | None
    """None: it is damaged."""
    run: str
    """Id of the run that built it, by the ledger; empty where it is not among the ``RUNS`` newest."""
    champion: str | None
    """Id of the champion; None where there is none."""
    changes: list[tuple[str, str, str]]
    """Metrics, verdicts and lineage that differ from the champion: (name, the champion's value, this release's value)."""
    events: list[ReleaseEvent]
    """Events of the release in the release history, the newest first."""
    servers: list[ServerState] = field(default_factory=list)
    """Those of ``console.servers``, on the page of the champion; a terminal asks none."""
    problems: dict[str, str] = field(default_factory=dict)
    """Error by part of the screen that could not be read."""


def read_release(context: ReadContext, query: Mapping[str, str], store: ReleaseRegistry | None = None) -> ReleaseScreen:
    """Return the release with the full id ``query["release"]``; ``store``: another registry than the project's.

    Raises  NotFoundError where the registry has none of that name.
    """
    problems, store = ProblemList(), store or ReleaseRegistry(context.layout.releases)
    name = query["release"]
    if name not in store.ids():
        raise NotFoundError(name)
    champion = problems.attempt("champion", store.champion, None)
    roles = name_roles(champion, problems.attempt("canary", store.canary, None))
    manifest = problems.attempt("manifest", lambda: store.manifest(name), None)
    other = champion.release if champion is not None and champion.release != name else None
    changes: list[tuple[str, str, str]] = []
    if other is not None and manifest is not None:
        changes = problems.attempt(
            "changes", lambda: _list_changes(release_manifest.diff(store.manifest(other), manifest)), changes
        )
    events = problems.attempt("history", store.log, list[ReleaseEvent]())
    return ReleaseScreen(
        summarize_release(store, name, roles),
        manifest,
        problems.attempt("runs", lambda: _find_run(context, name), ""),
        champion.release if champion else None,
        changes,
        [event for event in reversed(events) if event.release == name],
        ask_configured_servers(context, name, problems) if champion is not None and champion.release == name else [],
        problems.problems,
    )


def _find_run(context: ReadContext, release: str) -> str:
    names = run_ledger.list_runs(context.layout)[:RUNS]
    return next((run.id for run in run_ledger.read_summaries(context.layout, names)[0] if run.release == release), "")


def _list_changes(parts: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return metrics, verdicts and lineage; files are left out, since they differ in every release."""
    rows = []
    for part, changes in parts.items():
        if part == "files":
            continue
        for name, (old, new) in changes.items():
            rows.append((f"{part}.{name}" if part == "lineage" else name, _format_value(old), _format_value(new)))
    return rows


def _format_value(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:24]  # digests: their beginning tells them apart

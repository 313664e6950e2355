"""``tunectl release log``: additions, promotions, rollbacks and retrain runs; or all steps of one run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunectl.core.errors import UsageError

if TYPE_CHECKING:
    from tunectl.registry.release_store import ReleaseRegistry
    from tunectl.retraining.state_machine import RetrainRun


def add_parser(verb: str, parser: argparse.ArgumentParser) -> None:  # noqa: ARG001 - every verb of release is declared alike
    """Add the arguments of ``tunectl release log``."""
    parser.add_argument("retrain", nargs="?", metavar="RETRAIN", help="all steps of this run (or: last)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write all runs as one HTML page")


def run_log(args: argparse.Namespace, store: ReleaseRegistry) -> int:
    """Print the release history, or the steps of one retrain, or write them as an HTML page; return the exit code."""
    from tunectl.artifacts.paths import ProjectPaths
    from tunectl.backends.system import terminal
    from tunectl.canary.canary_store import CanaryStore
    from tunectl.retraining.run_store import RunStore

    run_store, canaries = RunStore(ProjectPaths().retrain), CanaryStore(store)
    if args.page is not None:
        return _page(args, run_store, canaries)
    runs = run_store.runs()
    if args.retrain is not None:
        return _print_retrain(args, _find(runs, args.retrain), canaries)
    rows = _rows(store, runs)
    if args.json:
        terminal.print_json(rows)
        return 0
    columns = ("created_at", "action", "release", "previous", "author", "message")
    terminal.table("", columns, [tuple(str(row.get(name) or "") for name in columns) for row in rows])
    if runs:
        terminal.print_line("the report of one retrain: tunectl release log RETRAIN")
    return 0


def _rows(store: ReleaseRegistry, runs: list[RetrainRun]) -> list[dict[str, Any]]:
    """Return entries of the store's log and the ends of retrains, by time."""
    from msgspec import to_builtins

    entries = [{**to_builtins(entry), "created_at": entry.created_at[:19]} for entry in store.log()]
    for run in runs:
        result = run.facts("evaluating") or run.facts("rejected")
        entries.append(
            {
                "created_at": run.steps[-1].at.isoformat()[:19],
                "action": f"retrain {run.state}",
                "release": result.get("release", ""),
                "author": run.trigger.kind,
                "message": f"{run.id}: {run.trigger.message}; {run.steps[-1].message}".rstrip("; "),
                "retrain": run.id,
            }
        )
    return sorted(entries, key=lambda row: row["created_at"])


def _find(runs: list[RetrainRun], run_name: str) -> RetrainRun:
    result = runs[-1:] if run_name == "last" else [run for run in runs if run.id.startswith(run_name)]
    if len(result) != 1:
        what = "several retrain ids begin with this" if result else "there is no such retrain"
        names = ", ".join(run.id for run in (result or runs)[-8:]) or "none yet"
        raise UsageError(f"{run_name}: {what}", hint=f"there are: {names}")
    return result[0]


def _print_retrain(args: argparse.Namespace, run: RetrainRun, canaries: Any) -> int:
    from msgspec import to_builtins

    from tunectl.backends.system import terminal
    from tunectl.retraining import report

    canary = next((item for item in canaries.all() if item.run == run.id), None)
    if args.json:
        terminal.print_json({"retrain": to_builtins(run), "canary": to_builtins(canary) if canary else None})
        return 0
    result = report.build_report(run, canary)
    terminal.print_line(f"retrain {result.id}: {result.state}. {result.end or result.why}")
    for section in result.sections:
        terminal.table(section.title, section.columns, section.rows)
    return 0


def _page(args: argparse.Namespace, run_store: Any, canaries: Any) -> int:
    from tunectl.artifacts import atomic_io
    from tunectl.artifacts.paths import ProjectPaths
    from tunectl.backends.system import terminal
    from tunectl.config.loading import checks
    from tunectl.retraining.approval_pages import runs_page

    layout = ProjectPaths()
    project = checks.load_project_config(layout).root.project
    atomic_io.write_text(args.page, runs_page(run_store, canaries, project, linked=False))
    if args.json:
        terminal.print_json({"page": str(args.page)})
    else:
        terminal.print_line(f"page: {args.page}")
    return 0

"""Show the project on one screen: stages, champion, traffic, drift, retrain runs, and open approvals.

For each stage it prints what is stale and why, and the last verdicts. It reads records only; no server has to run.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import truncate
from tunectl.pipeline.stage_status import KEPT, NOT_BUILT, STALE, StageStatus

LONGEST = 90
"""Most letters of a cell."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl status`` to ``parser``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print one row per stage and one per running component, from dvc.lock and the records; return the exit code."""
    from msgspec import to_builtins

    from tunectl.backends.system import terminal
    from tunectl.console.read_context import ReadContext
    from tunectl.status import collect, status_text

    layout, now = ProjectPaths(), datetime.now(UTC)
    context = ReadContext(layout, now)
    stages = context.list_stages()
    if args.json:
        from tunectl.console.screens.home import read_home

        terminal.print_json(to_builtins(read_home(context, {})))
        return 0
    report = collect.collect_status(layout, context.load_settings(), now)
    columns = ("stage", "state", "seconds", "why", "verdict")
    terminal.table("", columns, [[_cell(getattr(stage, column)) for column in columns] for stage in stages])
    terminal.table("", ("component", "state"), list(status_text.format_rows(report, now)))
    for line in _next(stages):
        terminal.print_line(line)
    return 0


def _next(stages: list[StageStatus]) -> list[str]:
    kept_stages = [stage.stage for stage in stages if stage.state == KEPT]
    stale = [stage.stage for stage in stages if stage.state in {STALE, NOT_BUILT}]
    lines = [f"next: dvc checkout brings {', '.join(kept_stages)} here, from DVC's cache"] if kept_stages else []
    if stale:
        lines.append(f"next: tunectl repro rebuilds {', '.join(stale)}, and what reads them where it changes")
    return lines or ["every stage is up to date"]


def _cell(value: Any) -> Any:
    """Return numbers unchanged, and texts so short that all stages fit on a screen; ``--json`` has them whole."""
    return "" if value is None else truncate(value, LONGEST) if isinstance(value, str) else value

"""How things stand, in one screen: the stages, champion, traffic, drift, retrains, and what waits for a person.

Of the stages it says what is stale and why, and the last verdicts. It reads records only, so nothing has to run.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from tunectl.artifacts import io, manifest
from tunectl.artifacts.layout import Layout
from tunectl.artifacts.records import preview
from tunectl.cli import repro
from tunectl.core.errors import ArtifactError
from tunectl.stages import STAGES

LONGEST = 90
"""Letters of a cell."""
NOT_BUILT = "not built"
KEPT = "in the cache"
"""A stage that was built, here or by the watcher, and whose artifact is not in the working tree."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the words of this verb."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Compose, ask DVC what would rerun, read the records of the loop, and print one row a stage and one a part."""
    from msgspec import to_builtins

    from tunectl.backends import terminal
    from tunectl.cli import status_look, status_words
    from tunectl.config import check, overrides

    layout, now = Layout(), datetime.now(UTC)
    stages = survey(layout)
    found = status_look.glance(layout, check.load(layout, overrides.replay(layout)).root, now)
    if args.json:
        terminal.print_json({"stages": stages, **to_builtins(found)})
        return 0
    columns = ("stage", "state", "seconds", "why", "verdict")
    terminal.table("", columns, [[_cell(row[column]) for column in columns] for row in stages])
    terminal.table("", ("loop", "how it stands"), list(status_words.rows(found, now)))
    for line in _next(stages):
        terminal.say(line)
    return 0


def _next(stages: list[dict[str, Any]]) -> list[str]:
    kept = [row["stage"] for row in stages if row["state"] == KEPT]
    stale = [row["stage"] for row in stages if row["state"] not in {"up to date", "switched off", KEPT}]
    lines = [f"next: dvc checkout brings {', '.join(kept)} here, from DVC's cache"] if kept else []
    if stale:
        lines.append(f"next: tunectl repro rebuilds {', '.join(stale)}")
    return lines or ["every stage is up to date"]


def _cell(value: Any) -> Any:
    """Numbers as they are, texts so short that all stages fit on a screen; ``--json`` has them whole."""
    return "" if value is None else preview(value, LONGEST) if isinstance(value, str) else value


def survey(layout: Layout) -> list[dict[str, Any]]:
    """One row a stage: state, seconds of the last run, reasons to rerun, verdict in words."""
    from tunectl.backends import dvc_repo
    from tunectl.stages.compose import compose

    compose(layout)
    changed = dvc_repo.status(layout.root)
    rows: list[dict[str, Any]] = []
    lost: set[str] | None = None
    for stage in STAGES:
        reasons = _reasons(changed.get(stage.name, []))
        if f"{layout.config(stage.name).relative_to(layout.root).as_posix()} new" in reasons:  # DVC has not run it once
            reasons = ["not built yet"]
        state = _state(layout, stage.name, reasons)
        if state == NOT_BUILT and reasons and all(reason.endswith(" deleted") for reason in reasons):
            lost = dvc_repo.lost(layout.root) if lost is None else lost
            if layout.artifact(stage.name).relative_to(layout.root).as_posix() not in lost:
                state, reasons = KEPT, []
        found = repro.verdict(layout, stage.name)
        rows.append(
            {
                "stage": stage.name,
                "state": state,
                "seconds": _seconds(layout, stage.name),
                "why": "; ".join(reasons),
                "verdict": found["reason"] if found else None,
            }
        )
    return rows


def _state(layout: Layout, stage: str, reasons: list[str]) -> str:
    try:
        found = manifest.read(layout.artifact(stage))
    except ArtifactError:
        return NOT_BUILT
    if reasons:
        return "stale"
    return "switched off" if found.passed_through else "up to date"


def _seconds(layout: Layout, stage: str) -> float | None:
    path = layout.metrics(stage)
    return io.read_json(path)["seconds"] if path.is_file() else None


def _reasons(changes: list[Any]) -> list[str]:
    """DVC's nested report as short phrases, for example ``artifacts/config/sft.json: sft.rank modified``."""
    reasons: list[str] = []
    for change in changes:
        if isinstance(change, str):
            reasons.append(change)
            continue
        for kind, things in change.items():
            for name, what in things.items():
                details = [f"{key} {state}" for key, state in what.items()] if isinstance(what, dict) else [str(what)]
                reasons.append(f"{name} {', '.join(details)}" if kind != "changed outs" else f"output {name} {what}")
    return reasons

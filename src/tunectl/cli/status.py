"""Show the stages, what is stale and why, how long each took, the last verdicts, and which release is the champion."""

from __future__ import annotations

import argparse
from typing import Any

from tunectl.artifacts import io, manifest
from tunectl.artifacts.layout import Layout
from tunectl.cli import repro
from tunectl.core.errors import ArtifactError
from tunectl.stages import STAGES


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the words of this verb."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Compose, ask DVC what would rerun, and print one row a stage."""
    layout = Layout()
    rows = survey(layout)
    from tunectl.backends import terminal

    if args.json:
        terminal.print_json(rows)
        return 0
    columns = ("stage", "state", "seconds", "why", "verdict")
    terminal.table(
        "", columns, [[row[column] if row[column] is not None else "" for column in columns] for row in rows]
    )
    stale = [row["stage"] for row in rows if row["state"] not in {"up to date", "switched off"}]
    terminal.say(f"next: tunectl repro rebuilds {', '.join(stale)}" if stale else "everything is up to date")
    terminal.say(champion(layout))
    return 0


def champion(layout: Layout) -> str:
    """Who serves, and who is tried beside it, in a sentence."""
    from tunectl.release.store import Store

    store = Store(layout.releases)
    pointer, trial = store.champion(), store.trial()
    if pointer is None:
        return (
            f"champion: none of {len(store.ids())} releases"
            if store.ids()
            else "champion: none, there is no release yet"
        )
    why = f" ({pointer.why})" if pointer.why else ""
    tried = f"; challenger: {trial.release}, {trial.share:.0%} of the people" if trial else ""
    return f"champion: {pointer.release}, since {pointer.promoted_at[:16]}{why}{tried}"


def survey(layout: Layout) -> list[dict[str, Any]]:
    """One row a stage: state, seconds of the last run, reasons to rerun, verdict in words."""
    from tunectl.backends import dvc_repo
    from tunectl.stages.compose import compose

    compose(layout)
    changed = dvc_repo.status(layout.root)
    rows: list[dict[str, Any]] = []
    for stage in STAGES:
        reasons = _reasons(changed.get(stage.name, []))
        if f"{layout.config(stage.name).relative_to(layout.root).as_posix()} new" in reasons:  # DVC has not run it once
            reasons = ["not built yet"]
        found = repro.verdict(layout, stage.name)
        rows.append(
            {
                "stage": stage.name,
                "state": _state(layout, stage.name, reasons),
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
        return "not built"
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

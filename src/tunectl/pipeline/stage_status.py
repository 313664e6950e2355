"""How the stages stand: what is stale and why, what DVC keeps, the last verdicts."""

from __future__ import annotations

from typing import Any

from tunectl.artifacts import atomic_io, manifest
from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import ArtifactError
from tunectl.pipeline.stages import STAGES

NOT_BUILT = "not built"
KEPT = "in the cache"
"""A stage that was built, here or by the retrain controller, and whose artifact is not in the working tree."""


def stage_status(layout: ProjectPaths) -> list[dict[str, Any]]:
    """One row a stage: state, seconds of the last run, reasons to rerun, verdict in words."""
    from tunectl.backends.vcs import dvc_repo
    from tunectl.pipeline.stages.compose import compose

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
            lost = dvc_repo.missing_cached_outputs(layout.root) if lost is None else lost
            if layout.artifact(stage.name).relative_to(layout.root).as_posix() not in lost:
                state, reasons = KEPT, []
        found = stage_verdict(layout, stage.name)
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


def _state(layout: ProjectPaths, stage: str, reasons: list[str]) -> str:
    try:
        found = manifest.read(layout.artifact(stage))
    except ArtifactError:
        return NOT_BUILT
    if reasons:
        return "stale"
    return "switched off" if found.passed_through else "up to date"


def _seconds(layout: ProjectPaths, stage: str) -> float | None:
    path = layout.metrics(stage)
    return atomic_io.read_json(path)["seconds"] if path.is_file() else None


def _reasons(changes: list[Any]) -> list[str]:
    """DVC's nested report as short phrases, for example ``artifacts/config/sft.json: sft.lora_rank modified``."""
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


def stage_verdict(layout: ProjectPaths, stage: str) -> dict[str, Any] | None:
    """The verdict that a stage left, or None where it leaves none."""
    path = layout.artifact(stage) / "verdict.json"
    return atomic_io.read_json(path) if path.is_file() else None

"""Collect the data of a retrain: the drift window, the frozen live traffic and feedback, and whether it is enough."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec.structs import replace

from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import DriftWindow
from tunectl.config.schema.feedback import FeedbackFromLog
from tunectl.config.schema.retrain import MinimumData
from tunectl.inference_log import erasure, snapshot, training_window
from tunectl.inference_log.feedback import digest_messages
from tunectl.inference_log.snapshot import Snapshot
from tunectl.inference_log.training_window import FeedbackWindow
from tunectl.monitoring import window as windows
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining import golden_set, schedules
from tunectl.retraining.activities import LiveOpener, StepResult
from tunectl.retraining.state_machine import RetrainRun
from tunectl.retraining.workspace import RetrainWorkspace

NEWS: Final = (timedelta(days=2), timedelta(days=32))
"""How far back windows are searched, the nearest first: this runs every few seconds, for years."""
BACK: Final = timedelta(days=30)
"""How far a snapshot reaches back before the previous one, for late feedback."""
DAWN: Final = datetime(1970, 1, 1, tzinfo=UTC)


def latest_drift_window(
    open_live: LiveOpener, champion: str, reference: Literal["live", "training"], now: datetime
) -> tuple[DriftWindow, datetime] | None:
    """Return the newest window with a verdict, and when it was examined, where the verdict is drift of the release ``champion``; else None.

    Windows without a verdict (insufficient, error) are skipped; so are windows older than the largest ``NEWS``, and windows with a
    time in the future, from a wrong clock. ``reference``: ``monitor.prompts.reference``.
    """
    for back in NEWS:
        with open_live() as log:
            rows = log.windows(now - back)
        for row in reversed(rows):
            result = _parse_decisive_window(row.body) if row.created_at <= now + schedules.AHEAD else None
            if result is not None:
                fits = result.verdict == "drift" and result.release == champion
                return (
                    (result, row.created_at)
                    if fits and not _has_newer_reference(open_live, result, reference)
                    else None
                )
    return None


def _parse_decisive_window(body: dict[str, Any]) -> DriftWindow | None:
    """Return a window with a verdict; None for others, and for rows of that table that are not the monitor's.

    It is without words of prompts: the record of a retrain keeps it, and no erasure reaches that.
    """
    try:
        result = msgspec.convert(body, DriftWindow, strict=False)
    except msgspec.ValidationError:
        return None
    return replace(result, segments=[]) if result.verdict in {"ok", "drift"} else None


def _has_newer_reference(open_live: LiveOpener, window: DriftWindow, reference: Literal["live", "training"]) -> bool:
    """Return whether a person has accepted another reference since: by that they declared the new traffic normal, so it is no drift."""
    if reference == "training":
        return False
    with open_live() as log:
        events = log.events(window.until, windows.REFERENCE_SET)
    return windows.is_stale(window, [event.body for event in events])


def freeze_snapshot(
    open_live: LiveOpener, layout: ProjectPaths, section: FeedbackFromLog, now: datetime, window: str | None
) -> Snapshot:
    """Return a new snapshot of the feedback until ``now``; ``window``: id of the drift window that caused it."""
    before = training_window.load_window(layout.root / section.window).snapshots
    since = min(before[-1].until, now) - BACK if before else DAWN
    with open_live() as log:
        return snapshot.freeze(log, layout.root / section.snapshots, since=since, until=now, at=now, window=window)


def build_window(
    run: RetrainRun,
    section: FeedbackFromLog,
    workspace: RetrainWorkspace,
    store: ReleaseRegistry,
    open_live: LiveOpener,
) -> FeedbackWindow:
    """Return the snapshots to train on: those of earlier retrains and the run's own, with the ids of erased inferences to leave out."""
    root = workspace.layout.root
    current = msgspec.convert(run.facts("proposed")["snapshot"], Snapshot)
    snapshots = [item for item in training_window.load_window(root / section.window).snapshots if item.id != current.id]
    snapshots.append(current)
    ids = {item.id for frozen in snapshots for item in snapshot.read(root / section.snapshots, frozen)[0]}
    with open_live() as log:
        erased = sorted(erasure.find_erased(log, ids))
    result = golden_set.newest(store.root)
    golden_items = golden_set.items(result[1], result[0]) if result else []
    return FeedbackWindow(
        snapshots, erased, sorted({digest_messages(item.messages) for item in golden_items if item.messages})
    )


def has_enough_data(window: FeedbackWindow, section: FeedbackFromLog, minimum: MinimumData, root: Path) -> StepResult:
    """Return whether the examples of ``window`` reach ``minimum``, with their numbers as facts."""
    examples = training_window.build_feedback_examples(window, section, root)
    training_examples = [example for example in examples.feedback.examples if not example.holdout]
    new_count = sum(example.inference.id in examples.newly_selected for example in training_examples)
    people = len({example.by for example in training_examples if example.by is not None})
    facts = {
        "examples": len(training_examples),
        "new_examples": new_count,
        "annotators": people,
        "edits": sum(example.kind == "edit" for example in training_examples),
        "held_out": len(examples.feedback.examples) - len(training_examples),
        "left_out": examples.feedback.reasons,
    }
    short = [
        f"{count} {what}, {least} are needed"
        for what, count, least in (
            ("rows to learn", len(training_examples), minimum.min_examples),
            ("new rows", new_count, minimum.min_new_examples),
            ("people", people, minimum.min_annotators),
        )
        if count < least
    ]
    summary = f"{len(training_examples)} rows to learn, {new_count} of them new, from {people} people"
    return StepResult(not short, f"too little to learn: {'; '.join(short)}" if short else summary, facts)

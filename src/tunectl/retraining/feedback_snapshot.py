"""Freeze live traffic and feedback for a retrain run, and check that there is enough to train on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.schema.feedback import FeedbackFromLog
from tunectl.config.schema.retrain import MinimumData
from tunectl.inference_log import erasure, snapshot, training_window
from tunectl.inference_log.feedback_selection import digest_messages
from tunectl.inference_log.snapshot import Snapshot
from tunectl.inference_log.training_window import FeedbackWindow
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining import golden_set
from tunectl.retraining.activities import LiveOpener, StepResult
from tunectl.retraining.state_machine import RetrainRun
from tunectl.retraining.workspace import RetrainWorkspace

BACK: Final = timedelta(days=30)
"""How far a snapshot reaches back behind the one before it, for opinions that came late."""
DAWN: Final = datetime(1970, 1, 1, tzinfo=UTC)


def freeze_snapshot(
    open_live: LiveOpener, layout: ProjectPaths, section: FeedbackFromLog, now: datetime, window: str | None
) -> Snapshot:
    """Freeze what was said until ``now``; ``window``: the drift window that asks for it."""
    before = training_window.load_window(layout.root / section.window).snapshots
    since = min(before[-1].until, now) - BACK if before else DAWN
    with open_live() as live:
        return snapshot.freeze(live, layout.root / section.snapshots, since=since, until=now, at=now, window=window)


def build_window(
    run: RetrainRun,
    section: FeedbackFromLog,
    workspace: RetrainWorkspace,
    store: ReleaseRegistry,
    open_live: LiveOpener,
) -> FeedbackWindow:
    """Return the snapshots of the build: the earlier ones and this one, without erased users."""
    root = workspace.layout.root
    current = msgspec.convert(run.facts("proposed")["snapshot"], Snapshot)
    snapshots = [item for item in training_window.load_window(root / section.window).snapshots if item.id != current.id]
    snapshots.append(current)
    ids = {item.id for frozen in snapshots for item in snapshot.read(root / section.snapshots, frozen)[0]}
    with open_live() as live:
        erased = sorted(erasure.find_erased(live, ids))
    result = golden_set.newest(store.root)
    golden_items = golden_set.items(result[1], result[0]) if result else []
    return FeedbackWindow(
        snapshots, erased, sorted({digest_messages(item.messages) for item in golden_items if item.messages})
    )


def has_enough_data(window: FeedbackWindow, section: FeedbackFromLog, minimum: MinimumData, root: Path) -> StepResult:
    """Return whether there is as much as ``minimum``, and how much there is."""
    examples = training_window.build_feedback_examples(window, section, root)
    training_examples = [example for example in examples.feedback.lessons if not example.held]
    new_count = sum(example.inference.id in examples.fresh for example in training_examples)
    people = len({example.by for example in training_examples if example.by is not None})
    facts = {
        "examples": len(training_examples),
        "new_examples": new_count,
        "annotators": people,
        "edits": sum(example.kind == "edit" for example in training_examples),
        "held_out": len(examples.feedback.lessons) - len(training_examples),
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
    words = f"{len(training_examples)} rows to learn, {new_count} of them new, from {people} people"
    return StepResult(not short, f"too little to learn: {'; '.join(short)}" if short else words, facts)

"""Training examples of all snapshots in ``inference_log/window.json``. That file is committed, and contains no text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from msgspec import Struct, field

from tunectl.artifacts.record_format import RecordFormat
from tunectl.artifacts.records import Feedback, InferenceRecord
from tunectl.config.schema.feedback import FeedbackFromLog
from tunectl.core.errors import ArtifactError
from tunectl.inference_log import feedback, snapshot, version_0_1
from tunectl.inference_log.feedback import FeedbackSelection
from tunectl.inference_log.snapshot import Snapshot

WINDOW_FORMAT: Final = RecordFormat("feedback window", (version_0_1.convert_training_window,))


class FeedbackWindow(Struct, frozen=True):
    """Content of ``inference_log/window.json``: the snapshots for the next build."""

    snapshots: list[Snapshot] = field(default_factory=list)
    """Snapshots, the oldest first; the newest one is the drifted slice of the gate."""
    erased: list[str] = field(default_factory=list)
    """Inferences of those snapshots, and feedback on them, that may no longer be used."""
    golden: list[str] = field(default_factory=list)
    """Digests of the questions of the golden set (``feedback.digest_prompt``)."""


def load_window(path: Path) -> FeedbackWindow:
    """Return the snapshots in the file of ``feedback.window``; without snapshots where the file is absent or null.

    Raises  ArtifactError for a damaged file, one of a newer tunectl, or where only that of tunectl 0.1 exists.
    """
    if path.is_file():
        return read_window(path) or FeedbackWindow()
    old = path.parent.parent / "live" / path.name
    if path.parent.name == "inference_log" and old.is_file():
        raise ArtifactError(f"{old} is of tunectl 0.1; since 0.2 it is {path}", hint="move it: tunectl log migrate")
    return FeedbackWindow()


def read_window(path: Path) -> FeedbackWindow | None:
    """Return the snapshots in a ``window.json``, also of tunectl 0.1; None where it contains null.

    Raises  ArtifactError for a damaged file, or one of a newer tunectl.
    """
    window: FeedbackWindow | None = WINDOW_FORMAT.read(path, FeedbackWindow | None)  # type: ignore[arg-type]
    return window


def _select_examples(
    window: FeedbackWindow,
    section: FeedbackFromLog,
    inferences: Mapping[str, InferenceRecord],
    feedback_by_inference: Mapping[str, Sequence[Feedback]],
    at: datetime,
) -> FeedbackSelection:
    erased = set(window.erased)
    return feedback.select_examples(
        inferences.values(),
        {
            name: [item for item in feedback if item.id not in erased]
            for name, feedback in feedback_by_inference.items()
        },
        feedback.rules_of(section),
        at=at,
        erased=erased,
        golden=set(window.golden),
    )


class FeedbackExamples(Struct, frozen=True):
    """Training examples of all snapshots of a FeedbackWindow together, with the inferences that they come from."""

    feedback: FeedbackSelection
    inferences: dict[str, InferenceRecord]
    """Inferences by id, with their original answers."""
    newest_snapshots: dict[str, Snapshot]
    """Newest snapshot with each inference."""
    newly_selected: frozenset[str]
    """Inferences that are examples only since the newest snapshot, which covers older inferences as well."""


def build_feedback_examples(window: FeedbackWindow, section: FeedbackFromLog, root: Path = Path()) -> FeedbackExamples:
    """Return the examples of all snapshots in ``window``; of an inference in several snapshots, the newest feedback counts.

    Raises  ArtifactError for a snapshot that is absent or was changed.
    """
    inferences: dict[str, InferenceRecord] = {}
    feedback: dict[str, list[Feedback]] = {}
    snapshots: dict[str, Snapshot] = {}
    result, earlier = FeedbackSelection([], []), FeedbackSelection([], [])
    for number, frozen in enumerate(window.snapshots, 1):
        frozen_inferences, opinions = snapshot.read(root / section.snapshots, frozen)
        inferences.update({inference.id: inference for inference in frozen_inferences})
        feedback.update(opinions)
        snapshots.update({inference.id: frozen for inference in frozen_inferences})
        if number >= len(window.snapshots) - 1:
            at = max(item.created_at for item in window.snapshots[:number])
            earlier, result = result, _select_examples(window, section, inferences, feedback, at)
    new_ids = {example.inference.id for example in result.examples} - {
        example.inference.id for example in earlier.examples
    }
    return FeedbackExamples(result, inferences, snapshots, frozenset(new_ids))

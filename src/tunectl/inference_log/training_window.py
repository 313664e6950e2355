"""What the snapshots that ``live/window.json`` names teach together. That file is committed, and holds no text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from msgspec import Struct, field

from tunectl.artifacts import atomic_io
from tunectl.artifacts.records import Feedback, InferenceRecord
from tunectl.config.schema.feedback import FeedbackFromLog
from tunectl.inference_log import feedback_rules, feedback_selection, snapshot
from tunectl.inference_log.feedback_rules import FeedbackSelection
from tunectl.inference_log.snapshot import Snapshot


class FeedbackWindow(Struct, frozen=True):
    """``live/window.json``: what the next build learns from."""

    snapshots: list[Snapshot] = field(default_factory=list)
    """The oldest first; the newest one is the drifted slice of the gate."""
    forgotten: list[str] = field(default_factory=list)
    """Exchanges of those snapshots, and opinions about them, that may no longer be used."""
    golden: list[str] = field(default_factory=list)
    """Digests of the questions of the golden set (``feedback_selection.digest_prompt``)."""


def load_window(path: Path) -> FeedbackWindow:
    """What ``live/window.json`` says; nothing where it is absent or null.

    Raises  ArtifactError for a damaged file.
    """
    if not path.is_file():
        return FeedbackWindow()
    found: FeedbackWindow | None = atomic_io.read_json(path, FeedbackWindow | None)
    return found or FeedbackWindow()


def _select_examples(
    named: FeedbackWindow,
    section: FeedbackFromLog,
    exchanges: Mapping[str, InferenceRecord],
    said: Mapping[str, Sequence[Feedback]],
    at: datetime,
) -> FeedbackSelection:
    forgotten = set(named.forgotten)
    return feedback_selection.select_examples(
        exchanges.values(),
        {name: [one for one in opinions if one.id not in forgotten] for name, opinions in said.items()},
        feedback_rules.rules_of(section),
        at=at,
        forgotten=forgotten,
        golden=set(named.golden),
    )


class FeedbackExamples(Struct, frozen=True):
    """What all named snapshots together teach."""

    feedback: FeedbackSelection
    exchanges: dict[str, InferenceRecord]
    """By id, as they were answered."""
    home: dict[str, Snapshot]
    """By exchange: the newest snapshot that has it."""
    fresh: frozenset[str]
    """Exchanges that teach something, and did not without the newest snapshot; it reaches back over those before it."""


def build_feedback_examples(named: FeedbackWindow, section: FeedbackFromLog, root: Path = Path()) -> FeedbackExamples:
    """Lessons of all snapshots that ``load_window`` names; a later snapshot knows more of what was said.

    Raises  ArtifactError for one that is absent or was changed.
    """
    exchanges: dict[str, InferenceRecord] = {}
    said: dict[str, list[Feedback]] = {}
    home: dict[str, Snapshot] = {}
    found, known = FeedbackSelection([], []), FeedbackSelection([], [])
    for place, frozen in enumerate(named.snapshots, 1):
        ours, opinions = snapshot.read(root / section.snapshots, frozen)
        exchanges.update({one.id: one for one in ours})
        said.update(opinions)
        home.update({one.id: frozen for one in ours})
        if place >= len(named.snapshots) - 1:
            at = max(one.at for one in named.snapshots[:place])
            known, found = found, _select_examples(named, section, exchanges, said, at)
    fresh = {lesson.exchange.id for lesson in found.lessons} - {lesson.exchange.id for lesson in known.lessons}
    return FeedbackExamples(found, exchanges, home, frozenset(fresh))

"""The retrain records on the disk: each a file that appears or is replaced whole, so a kill leaves the old or the new one.

    <root>/runs/<number>-<run id>.json   the whole story of one run; rewritten at each step
    <root>/inbox/<id>.json               a trigger that waits
    <root>/seen/<id>.json                what became of a trigger: the same one never starts twice
    <root>/answers/<run>-<question>.json a person's decision: made once, whoever was first
    <root>/calendar.json                 the last slot of each schedule that was dealt with
    <root>/.lock                         held by the one ``tunectl retrain controller`` of the project

Readers take no lock. Only ``receive`` and ``answer`` may be called beside the lock's holder: they make new files.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from tunectl.artifacts import atomic_io, create_exclusive
from tunectl.retraining.state_machine import RetrainRun, Suppressed, Trigger

RUNS, INBOX, SEEN, ANSWERS, CALENDAR, LOCK = "runs", "inbox", "seen", "answers", "calendar.json", ".lock"
NAME: Final = re.compile(r"[\w.:-]{1,120}")


class TriggerOutcome(Struct, frozen=True, omit_defaults=True):
    """What became of a trigger."""

    trigger: Trigger
    at: datetime
    run: str | None = None
    """The run that it started."""
    reason: Suppressed | None = None
    words: str = ""


class ApprovalDecision(Struct, frozen=True):
    """A person's decision."""

    yes: bool
    at: datetime
    by: str
    nonce: str


class RunStore:
    """See the module's text."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def runs(self) -> list[RetrainRun]:
        """All runs, the oldest first.

        Raises  ArtifactError for a file that was changed by hand.
        """
        return [atomic_io.read_json(path, RetrainRun) for path in self._files(RUNS)]

    def save(self, run: RetrainRun) -> None:
        """Write a run as it stands now; durable on return."""
        known = {path.stem.partition("-")[2]: path for path in self._files(RUNS)}
        number = 1 + max((int(path.stem.partition("-")[0]) for path in known.values()), default=-1)
        atomic_io.write_json(known.get(run.id, self.root / RUNS / f"{number:05d}-{run.id}.json"), run)

    def enqueue_trigger(self, trigger: Trigger) -> bool:
        """Keep a trigger until it is dealt with; durable on return. False: it is known already."""
        if self.get_outcome(trigger.id) is not None:
            return False
        return create_exclusive.create_exclusive(self._place(INBOX, trigger.id), _line(trigger))

    def is_pending(self, trigger: str) -> bool:
        """Whether a trigger was received and is not dealt with."""
        return self._place(INBOX, trigger).is_file()

    def list_pending_triggers(self) -> list[Trigger]:
        """Triggers that wait, the oldest first; changes nothing."""
        waiting = [path for path in self._files(INBOX) if not (self.root / SEEN / path.name).is_file()]
        found: list[Trigger] = [atomic_io.read_json(path, Trigger) for path in waiting]
        return sorted(found, key=lambda trigger: (trigger.at, trigger.id))

    def remove_resolved_triggers(self) -> None:
        """Remove from the inbox what a kill left there although it was dealt with. For the lock's holder."""
        for path in self._files(INBOX):
            if (self.root / SEEN / path.name).is_file():
                path.unlink(missing_ok=True)

    def resolve_trigger(self, seen: TriggerOutcome) -> None:
        """Write what became of a trigger, then forget that it waits."""
        atomic_io.write_json(self._place(SEEN, seen.trigger.id), seen)
        self._place(INBOX, seen.trigger.id).unlink(missing_ok=True)

    def get_outcome(self, trigger: str) -> TriggerOutcome | None:
        """What became of a trigger; None where it waits or never came."""
        path = self._place(SEEN, trigger)
        return atomic_io.read_json(path, TriggerOutcome) if path.is_file() else None

    def list_outcomes(self) -> list[TriggerOutcome]:
        """What became of every trigger, the oldest first."""
        return sorted((atomic_io.read_json(path, TriggerOutcome) for path in self._files(SEEN)), key=lambda one: one.at)

    def record_decision(self, run: str, question: str, answer: ApprovalDecision) -> bool:
        """Keep a decision; False where there is one already."""
        return create_exclusive.create_exclusive(self._place(ANSWERS, f"{run}-{question}"), _line(answer))

    def get_decision(self, run: str, question: str) -> ApprovalDecision | None:
        """The decision; None while nobody has decided."""
        path = self._place(ANSWERS, f"{run}-{question}")
        return atomic_io.read_json(path, ApprovalDecision) if path.is_file() else None

    def get_schedule_marks(self) -> dict[str, datetime]:
        """The last slot of each schedule that was dealt with."""
        path = self.root / CALENDAR
        return atomic_io.read_json(path, dict[str, datetime]) if path.is_file() else {}

    def set_schedule_mark(self, calendar: dict[str, datetime]) -> None:
        """Write the calendar."""
        atomic_io.write_json(self.root / CALENDAR, calendar)

    def _place(self, folder: str, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name[:40]!r} is no name of a record")
        return self.root / folder / f"{name}.json"

    def _files(self, folder: str) -> list[Path]:
        place = self.root / folder
        return sorted(path for path in place.glob("*.json") if not path.name.startswith(".")) if place.is_dir() else []


def _line(record: Struct) -> bytes:
    return msgspec.json.encode(record) + b"\n"

"""The retrain records on the disk: each is a file that is written atomically, so that a kill leaves the old or the new one.

    <root>/runs/<number>-<run id>.json   the whole record of one run; rewritten at each step
    <root>/inbox/<id>.json               a pending trigger
    <root>/outcomes/<id>.json            the outcome of a trigger: the same one never starts twice
    <root>/approvals/<run>-<question>.json  a person's decision: written once, by whoever was first
    <root>/schedule_marks.json           the last handled slot of each schedule
    <root>/.lock                         held by the one ``tunectl retrain controller`` of the project
    <root>/.inbox.lock                   held while a trigger is stored, so that two at once do not both fit

Readers take no lock. Of the writers only ``enqueue_trigger`` and ``record_decision`` may be called without ``.lock``: they create new files.
Records of tunectl 0.1 are in ``seen``, ``answers`` and ``calendar.json``: they are read there until the lock's holder has moved them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from msgspec import Struct

from tunectl.artifacts import atomic_io, lock, record_format
from tunectl.artifacts.record_format import RecordFormat
from tunectl.artifacts.records import truncate
from tunectl.core.errors import ArtifactError, UsageError
from tunectl.retraining import run_formats
from tunectl.retraining.state_machine import RetrainRun, Suppressed, Trigger, TriggerKind

T = TypeVar("T")
RUNS, INBOX, OUTCOMES, APPROVALS = "runs", "inbox", "outcomes", "approvals"
MARKS, LOCK, INBOX_LOCK = "schedule_marks.json", ".lock", ".inbox.lock"
OLD_MARKS: Final = "calendar.json"
OLD_FOLDERS: Final = {OUTCOMES: "seen", APPROVALS: "answers"}
"""Names of two folders in tunectl 0.1."""
MAX_PENDING: Final = 20
"""Most pending triggers of a kind that comes from outside: all of them can start only one retrain."""
FROM_OUTSIDE: Final[frozenset[TriggerKind]] = frozenset(("alert", "person"))
"""Kinds of triggers that holders of a key send; the controller makes the others itself, one for each slot or window."""
NAME: Final = re.compile(r"[\w.:-]{1,120}")


class TriggerPendingError(UsageError):
    """Raised for a trigger that is not stored, since pending ones do what it asks for."""


class TriggerOutcome(Struct, frozen=True, omit_defaults=True):
    """Whether a trigger started a run (``run``) or why not (``reason``); written once per trigger."""

    trigger: Trigger
    at: datetime
    run: str | None = None
    """The run that it started."""
    reason: Suppressed | None = None
    detail: str = ""


class ApprovalDecision(Struct, frozen=True):
    """A person's answer to an approval: approved or rejected, by whom, when and why; written once per approval."""

    approved: bool
    at: datetime
    author: str
    nonce: str
    message: str = ""
    """Why, where it was asked for."""

    def describe(self) -> str:
        """Return who approved or rejected, and why, as text."""
        why = f": {self.message}" if self.message else ""
        return f"{self.author or 'somebody'} said {'yes' if self.approved else 'no'}{why}"


class ScheduleMarks(Struct, frozen=True):
    """Content of ``schedule_marks.json``: the last handled slot (due time) of each schedule of ``retrain.schedules``."""

    marks: dict[str, datetime]
    """Last handled slot by schedule."""


class RunStore:
    """Reads and writes the records of retrain runs, one JSON file each, below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._cache: dict[Path, tuple[tuple[int, int, int], Any]] = {}
        """Records that were read, with the stamp of their file: each scrape of the metrics reads all of them."""

    def runs(self) -> list[RetrainRun]:
        """Return all runs, the oldest first.

        Raises  ArtifactError for a file that was changed by hand.
        """
        return [self._read(path, run_formats.RUN, RetrainRun) for path in self._files(RUNS)]

    def save(self, run: RetrainRun) -> None:
        """Save the current state of a run; durable on return."""
        paths_by_id = {path.stem.partition("-")[2]: path for path in self._files(RUNS)}
        number = 1 + max((int(path.stem.partition("-")[0]) for path in paths_by_id.values()), default=-1)
        run_formats.RUN.write(paths_by_id.get(run.id, self.root / RUNS / f"{number:05d}-{run.id}.json"), run)

    def enqueue_trigger(self, trigger: Trigger) -> bool:
        """Store a trigger until it is handled, durable on return; return False where its id is known already.

        Raises  TriggerPendingError where what a person asks for is pending, or ``MAX_PENDING`` of its kind are.
        """
        with lock.file_lock(
            self.root / INBOX_LOCK,
            "a trigger",
            busy="another trigger is being stored",
            hint="try again",
            timeout_seconds=10,
        ):
            if self.get_outcome(trigger.id) is not None or self.is_pending(trigger.id):
                return False
            if trigger.kind in FROM_OUTSIDE:
                _refuse_excess(trigger, [item for item in self.list_pending_triggers() if item.kind == trigger.kind])
            return atomic_io.create_exclusive(self._path_of(INBOX, trigger.id), run_formats.TRIGGER.encode(trigger))

    def is_pending(self, trigger: str) -> bool:
        """Return whether the trigger with this id was received and is not handled yet."""
        return self._path_of(INBOX, trigger).is_file()

    def list_pending_triggers(self) -> list[Trigger]:
        """Return pending triggers, the oldest first; changes nothing."""
        triggers: list[Trigger] = []
        for path in self._files(INBOX):
            if self._is_resolved(path):
                continue
            try:
                triggers.append(run_formats.TRIGGER.read(path, Trigger))
            except ArtifactError:
                if path.exists():  # else the controller has handled it meanwhile
                    raise
        return sorted(triggers, key=lambda trigger: (trigger.at, trigger.id))

    def remove_resolved_triggers(self) -> None:
        """Remove handled triggers that a kill left in the inbox. The caller holds the store's lock."""
        for path in self._files(INBOX):
            if self._is_resolved(path):
                path.unlink(missing_ok=True)

    def adopt_old_names(self) -> None:
        """Move records of tunectl 0.1 to the present folders, each written before the old file is removed. The caller holds the store's lock."""
        for folder, form, shape in (
            (OUTCOMES, run_formats.OUTCOME, TriggerOutcome),
            (APPROVALS, run_formats.DECISION, ApprovalDecision),
        ):
            for path in _list_records(self.root / OLD_FOLDERS[folder]):
                record: Struct = form.read(path, shape)
                form.write(self.root / folder / path.name, record)
                path.unlink()
        if (self.root / OLD_MARKS).is_file():
            self.set_schedule_marks(self.get_schedule_marks())
            (self.root / OLD_MARKS).unlink()

    def resolve_trigger(self, outcome: TriggerOutcome) -> None:
        """Write the outcome of a trigger, then remove it from the inbox."""
        run_formats.OUTCOME.write(self._path_of(OUTCOMES, outcome.trigger.id), outcome)
        self._path_of(INBOX, outcome.trigger.id).unlink(missing_ok=True)

    def get_outcome(self, trigger: str) -> TriggerOutcome | None:
        """Return the outcome of the trigger with this id; None where it is pending or never came."""
        path = self._find(OUTCOMES, trigger)
        return run_formats.OUTCOME.read(path, TriggerOutcome) if path.is_file() else None

    def list_outcomes(self) -> list[TriggerOutcome]:
        """Return the outcome of every trigger, the oldest first."""
        result = [self._read(path, run_formats.OUTCOME, TriggerOutcome) for path in self._files(OUTCOMES)]
        return sorted(result, key=lambda item: item.at)

    def record_decision(self, run: str, question: str, answer: ApprovalDecision) -> bool:
        """Store the decision on approval ``question`` of a run and return True; False where there is one already."""
        path = self._path_of(APPROVALS, f"{run}-{question}")
        if self._find(APPROVALS, path.stem) != path:
            return False
        return atomic_io.create_exclusive(path, run_formats.DECISION.encode(answer))

    def get_decision(self, run: str, question: str) -> ApprovalDecision | None:
        """Return the decision on approval ``question`` of a run; None while nobody has decided."""
        path = self._find(APPROVALS, f"{run}-{question}")
        return run_formats.DECISION.read(path, ApprovalDecision) if path.is_file() else None

    def get_schedule_marks(self) -> dict[str, datetime]:
        """Return the last handled slot (due time) of each schedule, by its name; empty where none was handled."""
        path = record_format.find_existing(self.root / MARKS, OLD_MARKS)
        return run_formats.MARKS.read(path, ScheduleMarks).marks if path.is_file() else {}

    def set_schedule_marks(self, slots: dict[str, datetime]) -> None:
        """Replace the last handled slots (due times) of all schedules; ``slots`` maps the name of a schedule to its slot."""
        run_formats.MARKS.write(self.root / MARKS, ScheduleMarks(slots))

    def _path_of(self, folder: str, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name[:40]!r} is not the name of a record")
        return self.root / folder / f"{name}.json"

    def _find(self, folder: str, name: str) -> Path:
        """Return the path of a record; where there is none, the path for writing it."""
        path = self._path_of(folder, name)
        older = self.root / OLD_FOLDERS[folder] / path.name
        return older if older.is_file() and not path.is_file() else path

    def _read(self, path: Path, form: RecordFormat, shape: type[T]) -> T:
        """Read a record, once while its file is unchanged; each change replaces the file."""
        try:
            status = path.stat()
        except OSError:  # it says what is wrong
            return form.read(path, shape)
        stamp = status.st_ino, status.st_size, status.st_mtime_ns
        entry = self._cache.get(path)
        if entry is None or entry[0] != stamp:
            entry = self._cache[path] = stamp, form.read(path, shape)
        result: T = entry[1]
        return result

    def _is_resolved(self, path: Path) -> bool:
        return self._find(OUTCOMES, path.stem).is_file()

    def _files(self, folder: str) -> list[Path]:
        """Return the records of a folder, by name; one under both the old and the new name (after a kill in between) counts once."""
        older = _list_records(self.root / OLD_FOLDERS[folder]) if folder in OLD_FOLDERS else []
        result = {path.name: path for path in (*older, *_list_records(self.root / folder))}
        return [result[name] for name in sorted(result)]


def _refuse_excess(trigger: Trigger, pending: Sequence[Trigger]) -> None:
    """Raise TriggerPendingError where ``pending``, those of the same kind, leave ``trigger`` nothing to do."""
    for other in pending if trigger.kind == "person" else ():
        same = (other.author, other.release) == (trigger.author, trigger.release)
        if same and other.ignore_limits >= trigger.ignore_limits:
            raise TriggerPendingError(
                f"the same is pending: {other.author or 'somebody'} asked for it at {other.at:%Y-%m-%d %H:%M} UTC"
                f" ({other.id}: {truncate(other.message, 100)})",
                hint="wait until the retrain controller has handled it: tunectl retrain status",
            )
    if len(pending) >= MAX_PENDING:
        raise TriggerPendingError(
            f"{len(pending)} triggers of kind {trigger.kind} are pending, and {MAX_PENDING} are allowed;"
            f" the oldest is {pending[0].id} of {pending[0].at:%Y-%m-%d %H:%M} UTC",
            hint="start the retrain controller, or wait until it has handled some: tunectl retrain status",
        )


def _list_records(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.json") if not path.name.startswith(".")] if folder.is_dir() else []

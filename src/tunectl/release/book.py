"""The retrain records on the disk: each a file that appears or is replaced whole, so a kill leaves the old or the new one.

    <root>/runs/<number>-<run id>.json   the whole story of one run; rewritten at each step
    <root>/inbox/<id>.json               a trigger that waits
    <root>/seen/<id>.json                what became of a trigger: the same one never starts twice
    <root>/answers/<run>-<question>.json a person's decision: made once, whoever was first
    <root>/calendar.json                 the last slot of each schedule that was dealt with
    <root>/.lock                         held by the one ``tunectl watch`` of the project

Readers take no lock. Only ``receive`` and ``answer`` may be called beside the lock's holder: they make new files.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from tunectl.artifacts import io, once
from tunectl.release.machine import Run, Suppressed, Trigger

RUNS, INBOX, SEEN, ANSWERS, CALENDAR, LOCK = "runs", "inbox", "seen", "answers", "calendar.json", ".lock"
NAME: Final = re.compile(r"[\w.:-]{1,120}")


class Seen(Struct, frozen=True, omit_defaults=True):
    """What became of a trigger."""

    trigger: Trigger
    at: datetime
    run: str | None = None
    """The run that it started."""
    reason: Suppressed | None = None
    words: str = ""


class Answer(Struct, frozen=True):
    """A person's decision."""

    yes: bool
    at: datetime
    by: str
    nonce: str


class Book:
    """See the module's text."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def runs(self) -> list[Run]:
        """All runs, the oldest first.

        Raises  ArtifactError for a file that was changed by hand.
        """
        return [io.read_json(path, Run) for path in self._files(RUNS)]

    def save(self, run: Run) -> None:
        """Write a run as it stands now; durable on return."""
        known = {path.stem.partition("-")[2]: path for path in self._files(RUNS)}
        number = 1 + max((int(path.stem.partition("-")[0]) for path in known.values()), default=-1)
        io.write_json(known.get(run.id, self.root / RUNS / f"{number:05d}-{run.id}.json"), run)

    def receive(self, trigger: Trigger) -> bool:
        """Keep a trigger until it is dealt with; durable on return. False: it is known already."""
        if self.seen(trigger.id) is not None:
            return False
        return once.create(self._place(INBOX, trigger.id), _line(trigger))

    def waits(self, trigger: str) -> bool:
        """Whether a trigger was received and is not dealt with."""
        return self._place(INBOX, trigger).is_file()

    def waiting(self) -> list[Trigger]:
        """Triggers that wait, the oldest first; those that a kill left behind although they were dealt with are removed."""
        found: list[Trigger] = []
        for path in self._files(INBOX):
            if (self.root / SEEN / path.name).is_file():
                path.unlink(missing_ok=True)
            else:
                found.append(io.read_json(path, Trigger))
        return sorted(found, key=lambda trigger: (trigger.at, trigger.id))

    def settle(self, seen: Seen) -> None:
        """Write what became of a trigger, then forget that it waits."""
        io.write_json(self._place(SEEN, seen.trigger.id), seen)
        self._place(INBOX, seen.trigger.id).unlink(missing_ok=True)

    def seen(self, trigger: str) -> Seen | None:
        """What became of a trigger; None where it waits or never came."""
        path = self._place(SEEN, trigger)
        return io.read_json(path, Seen) if path.is_file() else None

    def settled(self) -> list[Seen]:
        """What became of every trigger, the oldest first."""
        return sorted((io.read_json(path, Seen) for path in self._files(SEEN)), key=lambda one: one.at)

    def answer(self, run: str, question: str, answer: Answer) -> bool:
        """Keep a decision; False where there is one already."""
        return once.create(self._place(ANSWERS, f"{run}-{question}"), _line(answer))

    def answered(self, run: str, question: str) -> Answer | None:
        """The decision; None while nobody has decided."""
        path = self._place(ANSWERS, f"{run}-{question}")
        return io.read_json(path, Answer) if path.is_file() else None

    def calendar(self) -> dict[str, datetime]:
        """The last slot of each schedule that was dealt with."""
        path = self.root / CALENDAR
        return io.read_json(path, dict[str, datetime]) if path.is_file() else {}

    def mark(self, calendar: dict[str, datetime]) -> None:
        """Write the calendar."""
        io.write_json(self.root / CALENDAR, calendar)

    def _place(self, folder: str, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name[:40]!r} is no name of a record")
        return self.root / folder / f"{name}.json"

    def _files(self, folder: str) -> list[Path]:
        place = self.root / folder
        return sorted(path for path in place.glob("*.json") if not path.name.startswith(".")) if place.is_dir() else []


def _line(record: Struct) -> bytes:
    return msgspec.json.encode(record) + b"\n"

"""The experiment of a release store: one at a time, what the servers read, and the record that stays.

    <store>/challenger.json        what servers follow (``serving.arms.Trial``); absent where nothing is tried
    <store>/experiments/<id>.json  every experiment, replaced whole as it goes on

Begin: record first, then the servers' file. End: the servers' file goes first, so that after a kill nobody is on a challenger
that no record speaks of.
"""

from __future__ import annotations

import secrets
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from tunectl.artifacts import io, lock
from tunectl.core.errors import GateError, UsageError
from tunectl.release.experiment import Decision, Reading, Rules, check
from tunectl.release.outcomes import Measure
from tunectl.release.store import Store

CHALLENGER: Final = "challenger.json"
"""As servers know it."""
RECORDS: Final = "experiments"


class Served(Struct, frozen=True):
    """What servers are told."""

    release: str
    share: float
    salt: str


class Experiment(Struct, frozen=True, omit_defaults=True):
    """One experiment and how it stands."""

    id: str
    challenger: str
    champion: str
    measure: Measure
    rules: Rules
    attribution_hours: float
    slow_seconds: float
    began: datetime
    until: datetime
    """When an open question is given up."""
    salt: str
    by: str
    why: str
    run: str | None = None
    """The retrain that it belongs to; None: a person's own."""
    ended: datetime | None = None
    decision: Decision | None = None
    """``running`` where a person stopped it."""
    reading: Reading | None = None
    """The last look."""


class Trials:
    """The experiments of one store."""

    def __init__(self, store: Store) -> None:
        self.store, self.folder = store, store.root / RECORDS

    def all(self) -> list[Experiment]:
        """Every experiment, the oldest first."""
        if not self.folder.is_dir():
            return []
        found: list[Experiment] = [io.read_json(path, Experiment) for path in sorted(self.folder.glob("*.json"))]
        return sorted(found, key=lambda one: (one.began, one.id))

    def running(self) -> Experiment | None:
        """The one that runs."""
        return next((one for one in self.all() if one.ended is None), None)

    def served(self) -> Served | None:
        """What servers follow now."""
        path = self.store.root / CHALLENGER
        return io.read_json(path, Served) if path.is_file() else None

    def start(self, experiment: Experiment) -> Experiment:
        """Begin; the same id again goes on with what was begun.

        Raises  GateError while another one runs; UsageError for a release that is champion already, a store without a champion,
                or shares that leave an arm empty; ArtifactError for a release that is not there.
        """
        check(experiment.rules)
        pointer = self.store.champion()
        if pointer is None:
            raise UsageError(f"{self.store.root} has no champion to compare with", hint="tunectl release promote ID")
        if pointer.release == experiment.challenger:
            raise UsageError(f"release {experiment.challenger} is the champion already", hint="tunectl release list")
        self.store.manifest(experiment.challenger)
        with self._writing():
            other = self.running()
            if other is not None and other.id != experiment.id:
                raise GateError(
                    f"experiment {other.id} with {other.challenger} runs since {other.began:%Y-%m-%d %H:%M} UTC",
                    hint="wait for it, or end it: tunectl release experiment stop",
                )
            made = other or replace(experiment, champion=pointer.release)
            self.write(made)
            served = Served(made.challenger, made.rules.share, made.salt)
            io.write_json(self.store.root / CHALLENGER, served)
        return made

    def write(self, experiment: Experiment) -> None:
        """Replace a record."""
        io.write_json(self.folder / f"{experiment.id}.json", experiment)

    def end(self, experiment: Experiment, decision: Decision, at: datetime, reading: Reading | None) -> Experiment:
        """Take the challenger off the traffic, then write why."""
        with self._writing():
            (self.store.root / CHALLENGER).unlink(missing_ok=True)
            io.sync_folder(self.store.root)
            ended = replace(experiment, ended=at, decision=decision, reading=reading or experiment.reading)
            self.write(ended)
        return ended

    def mend(self) -> bool:
        """Bring the servers' file in line with the records after a kill; says whether something was wrong."""
        running, served = self.running(), self.served()
        if running is None and served is not None and any(one.salt == served.salt for one in self.all()):
            (self.store.root / CHALLENGER).unlink(missing_ok=True)
            return True
        if running is not None and served is None:
            io.write_json(self.store.root / CHALLENGER, Served(running.challenger, running.rules.share, running.salt))
            return True
        return False

    def _writing(self) -> AbstractContextManager[None]:
        return lock.held(
            self.store.root / ".experiment.lock",
            "an experiment",
            busy=f"{self.store.root}: another process changes its experiment",
        )


def fresh_salt() -> str:
    """Random, so that one experiment's assignment says nothing about the next one's."""
    return secrets.token_hex(8)

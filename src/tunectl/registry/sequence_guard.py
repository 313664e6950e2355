"""Guards against replay: a server never follows a champion pointer, or a signed canary, older than one it has seen.

A rollback has a higher sequence than the pointer before it, so it passes. A pointer whose key is revoked now hinders no other: whoever
had the key could have named a sequence that nothing follows. A canary that has ended is not started again: the
next one has a higher number.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

from msgspec import Struct

from tunectl.access.signatures import TrustStore
from tunectl.artifacts.canary_state import CanaryState
from tunectl.artifacts.record_format import RecordFormat
from tunectl.core.errors import TunectlError
from tunectl.registry import release_statement
from tunectl.registry.release_state import ChampionPointer

NEWEST: Final = RecordFormat("newest champion pointer", ())
NEWEST_CANARY: Final = RecordFormat("newest canary", ())
FILE, CANARY_FILE = "newest_champion.json", "newest_canary.json"
"""File names in the state folder of a server."""


class NewestPointer(Struct, frozen=True):
    """Content of the file with the newest champion pointer that was seen, and the location of its registry."""

    location: str
    pointer: ChampionPointer
    others: list[ChampionPointer] = []
    """The newest one of each other key that was seen before: they stay in force where the key of ``pointer`` is revoked."""


class SequenceGuard:
    """Stores the newest champion pointer that this machine has seen of one registry, in a file."""

    def __init__(self, path: Path | None = None) -> None:
        """``path``: a file that keeps it beyond this process; None: it is kept in memory only."""
        self._path = path
        self._newest: NewestPointer | None = None
        self.warning = ""
        """Why the last given pointer is not followed; empty where it is."""

    def find_newest(self, location: str) -> ChampionPointer | None:
        """Return the newest pointer of the registry at ``location`` that was seen; None where none was."""
        if self._newest is None and self._path is not None and self._path.is_file():
            with suppress(TunectlError):  # a file that was damaged remembers nothing
                self._newest = NEWEST.read(self._path, NewestPointer)
        return self._newest.pointer if self._newest is not None and self._newest.location == location else None

    def latest(
        self, pointer: ChampionPointer | None, location: str, trust: TrustStore | None = None
    ) -> ChampionPointer | None:
        """Return the pointer to follow: ``pointer`` of the registry at ``location``, or the newest one seen where it is older.

        With ``trust``, pointers that a key signed which is revoked now do not count as seen; where there is no other, they are kept.
        """
        newest = self.find_newest(location)
        self.warning = ""
        if pointer == newest:
            return pointer
        seen = self._list_in_force(newest, trust)
        bar = max(seen, key=lambda item: item.sequence, default=newest)
        if bar is not None and (pointer is None or (seen and pointer != bar and pointer.sequence <= bar.sequence)):
            named = f"release {pointer.release} with sequence {pointer.sequence}" if pointer else "no champion"
            self.warning = (
                f"{location} names {named}, and {bar.release} with sequence {bar.sequence} was seen there: it is an old copy. "
                f"{newest.release if newest else bar.release} stays; what is promoted or rolled back with a higher sequence is followed"
            )
            if self._path is not None:
                self.warning += f" (to follow the old copy, delete {self._path} and start again)"
            return newest
        if pointer is None:
            return None
        # without trust anybody can name any number of keys
        others = [item for item in seen if _name_key(item) != _name_key(pointer)] if trust is not None else []
        self._newest = NewestPointer(location, pointer, others)
        if self._path is not None:
            with suppress(TunectlError):  # a disk that cannot be written: this process remembers it
                NEWEST.write(self._path, self._newest)
        return pointer

    def _list_in_force(self, newest: ChampionPointer | None, trust: TrustStore | None) -> list[ChampionPointer]:
        seen = [newest, *self._newest.others] if newest is not None and self._newest is not None else []
        return [
            item for item in seen if trust is None or release_statement.check_pointer(item, trust).status != "revoked"
        ]


def _name_key(pointer: ChampionPointer) -> str:
    return pointer.signature.key_id if pointer.signature is not None else ""


class NewestCanary(Struct, frozen=True):
    """Content of the file with the newest canary that was seen, and the location of its registry."""

    location: str
    number: int
    ended: bool
    """Whether it has ended since."""


class CanaryGuard:
    """Stores the newest signed canary of one registry, and whether it has ended. A canary without a number is older than all others."""

    def __init__(self, path: Path | None = None) -> None:
        """``path``: a file that keeps it beyond this process; None: it is kept in memory only."""
        self._path = path
        self._newest: NewestCanary | None = None

    def observe(self, trial: CanaryState | None, location: str) -> str:
        """Record the canary of the registry at ``location``; return why it must not be followed, or an empty text."""
        newest = self._find_newest(location)
        if trial is None:
            if newest is not None and not newest.ended:
                self._remember(NewestCanary(location, newest.number, True))
            return ""
        number = trial.number or 0
        if newest is None or number > newest.number:
            if number:
                self._remember(NewestCanary(location, number, False))
            return ""
        if number == newest.number and not newest.ended:
            return ""
        then = ", and its end" if newest.ended else ""
        reason = f"the canary of {location} has the number {number}, and number {newest.number}{then} was seen there: it is an old copy"
        return f"{reason} (to follow it, delete {self._path} and start again)" if self._path is not None else reason

    def _find_newest(self, location: str) -> NewestCanary | None:
        if self._newest is None and self._path is not None and self._path.is_file():
            with suppress(TunectlError):  # a file that was damaged remembers nothing
                self._newest = NEWEST_CANARY.read(self._path, NewestCanary)
        return self._newest if self._newest is not None and self._newest.location == location else None

    def _remember(self, newest: NewestCanary) -> None:
        self._newest = newest
        if self._path is not None:
            with suppress(TunectlError):  # a disk that cannot be written: this process remembers it
                NEWEST_CANARY.write(self._path, newest)

"""Guard against replay: a server never follows a champion pointer older than one it has seen.

A rollback is no way back: its pointer has a higher sequence than the one before.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

from msgspec import Struct

from tunectl.artifacts.record_format import RecordFormat
from tunectl.core.errors import TunectlError
from tunectl.registry.release_state import ChampionPointer

NEWEST: Final = RecordFormat("newest champion pointer", ())
FILE: Final = "newest_champion.json"
"""In the state folder of a server."""


class NewestPointer(Struct, frozen=True):
    """The newest pointer that was seen, and where."""

    location: str
    pointer: ChampionPointer


class SequenceGuard:
    """Remembers the newest pointer of one registry."""

    def __init__(self, path: Path | None = None) -> None:
        """``path``: a file that remembers it beyond this process; None: nothing does."""
        self._path = path
        self._seen: NewestPointer | None = None
        self.warning = ""
        """Why the pointer that was given last is not followed; empty where it is."""

    def find_newest(self, location: str) -> ChampionPointer | None:
        """Return the newest pointer of the registry at ``location`` that was seen."""
        if self._seen is None and self._path is not None and self._path.is_file():
            with suppress(TunectlError):  # a file that was damaged remembers nothing
                self._seen = NEWEST.read(self._path, NewestPointer)
        return self._seen.pointer if self._seen is not None and self._seen.location == location else None

    def latest(self, pointer: ChampionPointer | None, location: str) -> ChampionPointer | None:
        """Return the pointer to follow: ``pointer`` of the registry at ``location``, or the newest that was seen where it is older."""
        seen = self.find_newest(location)
        self.warning = ""
        if pointer is None or pointer == seen:
            return pointer
        if seen is not None and pointer.sequence <= seen.sequence:
            self.warning = (
                f"{location} names release {pointer.release} with sequence {pointer.sequence}, and {seen.release} with sequence "
                f"{seen.sequence} was seen there: it is an old copy. {seen.release} stays; what is promoted or rolled back with a "
                "higher sequence is followed"
            )
            if self._path is not None:
                self.warning += f" (to follow the old copy, delete {self._path} and start again)"
            return seen
        self._seen = NewestPointer(location, pointer)
        if self._path is not None:
            with suppress(TunectlError):  # a disk that cannot be written: this process remembers it
                NEWEST.write(self._path, self._seen)
        return pointer

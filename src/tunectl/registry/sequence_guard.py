"""Guards against replay: a server never follows a champion pointer, or a signed canary, older than one it has seen.

A rollback has a higher sequence than the pointer before it, so it passes. A canary that has ended is not started again: the next one
has a higher number. What a key signed that is not trusted now, because it was revoked or removed, hinders no other: whoever had the
key could have named a number that nothing follows.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from msgspec import Struct

from tunectl.access.signatures import TrustStore
from tunectl.artifacts.canary_state import CanaryState
from tunectl.artifacts.record_format import RecordFormat
from tunectl.core.errors import TunectlError
from tunectl.registry import release_statement
from tunectl.registry.release_state import ChampionPointer

T = TypeVar("T", ChampionPointer, CanaryState)
NEWEST: Final = RecordFormat("newest champion pointer", ())
NEWEST_CANARY: Final = RecordFormat("newest canary", ())
FILE, CANARY_FILE = "newest_champion.json", "newest_canary.json"
"""File names in the state folder of a server."""


class FollowedPointer(NamedTuple):
    """The champion pointer that a program follows, and why it is not the registry's."""

    pointer: ChampionPointer | None
    problem: str = ""
    """Why it is not the pointer in the registry, or would not be followed again."""


class NewestPointer(Struct, frozen=True):
    """Content of the file with the newest champion pointer that was seen, and the location of its registry."""

    location: str
    pointer: ChampionPointer
    others: list[ChampionPointer] = []
    """Newest pointer of each other key that was seen; they count where the key that signed ``pointer`` is no longer trusted."""


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

    def follow(
        self, candidate: ChampionPointer | None, location: str, trust: TrustStore | None = None
    ) -> FollowedPointer:
        """Return the pointer to follow where the registry at ``location`` names ``candidate``: the newest one seen.

        With ``trust``, the newest one seen with a trusted signature; one that was followed stays when its key is revoked.
        """
        problem = ""
        if candidate is not None and trust is not None:
            newest = self.find_newest(location)
            status, reason = release_statement.check_pointer(candidate, trust)
            if status != "trusted":
                problem = f"the champion pointer of {location} with sequence {candidate.sequence} {reason}"
                if candidate != newest:
                    candidate = newest
                    problem += (
                        f"; {newest.release} stays, of sequence {newest.sequence}" if newest else "; it is not followed"
                    )
        pointer = self.latest(candidate, location, trust)
        return FollowedPointer(pointer, problem or self.warning)

    def latest(
        self, pointer: ChampionPointer | None, location: str, trust: TrustStore | None = None
    ) -> ChampionPointer | None:
        """Return the pointer to follow: ``pointer`` of the registry at ``location``, or the newest one seen where it is older.

        With ``trust``, only pointers with the signature of a key that is trusted now count as seen; without any, the newest one seen stays.
        """
        newest = self.find_newest(location)
        self.warning = ""
        if pointer == newest:
            return pointer
        newest_pointers = _list_in_force([newest, *self._newest.others], trust) if newest and self._newest else []
        bar = max(newest_pointers, key=lambda item: item.sequence, default=newest)
        if bar is not None and (
            pointer is None or (newest_pointers and pointer != bar and pointer.sequence <= bar.sequence)
        ):
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
        others = (
            [item for item in newest_pointers if _name_key(item) != _name_key(pointer)] if trust is not None else []
        )
        self._newest = NewestPointer(location, pointer, others)
        if self._path is not None:
            with suppress(TunectlError):  # a disk that cannot be written: this process remembers it
                NEWEST.write(self._path, self._newest)
        return pointer


def _list_in_force(records: Iterable[T], trust: TrustStore | None) -> list[T]:
    """Return those of ``records`` that a key signed which is trusted now; without ``trust`` all."""
    return [
        item for item in records if trust is None or release_statement.check_pointer(item, trust).status == "trusted"
    ]


def _name_key(pointer: ChampionPointer | CanaryState) -> str:
    return pointer.signature.key_id if pointer.signature is not None else ""


class SeenCanary(Struct, frozen=True):
    """A canary that was seen, and whether it has ended since, or another one replaced it."""

    state: CanaryState
    ended: bool

    @property
    def number(self) -> int:
        """Number of its start event; 0 where the record has none."""
        return self.state.number or 0


class NewestCanaries(Struct, frozen=True):
    """Content of the file with the newest canary of each key that was seen, and the location of their registry."""

    location: str
    seen: list[SeenCanary]


class CanaryGuard:
    """Stores the newest signed canary of each key in one registry, and whether it has ended. A canary without a number is older than all others."""

    def __init__(self, path: Path | None = None) -> None:
        """``path``: a file that keeps it beyond this process; None: it is kept in memory only."""
        self._path = path
        self._newest: NewestCanaries | None = None

    def observe(self, canary: CanaryState | None, location: str, trust: TrustStore | None = None) -> str:
        """Record the canary of the registry at ``location``; return why it must not be followed, or an empty text.

        With ``trust``, only canaries with the signature of a key that is trusted now count as seen.
        """
        seen = self._list_seen(location)
        if canary is None:
            if not all(item.ended for item in seen):
                self._remember(NewestCanaries(location, [SeenCanary(item.state, True) for item in seen]))
            return ""
        current = SeenCanary(canary, False)
        states = _list_in_force([item.state for item in seen], trust)
        in_force = [item for item in seen if item.state in states]
        bar = max(in_force, key=lambda item: (item.number, item.ended), default=None)
        if bar is None or current.number > bar.number or (current.number == bar.number and not bar.ended):
            # without trust anybody can name any number of keys
            self._record(current, seen, in_force if trust is not None else [], location)
            return ""
        then = ", and its end" if bar.ended else ""
        reason = f"the canary of {location} has the number {current.number}, and number {bar.number}{then} was seen there: it is an old copy"
        return f"{reason} (to follow it, delete {self._path} and start again)" if self._path is not None else reason

    def _record(self, current: SeenCanary, seen: list[SeenCanary], kept: list[SeenCanary], location: str) -> None:
        key = _name_key(current.state)
        if not current.number or any(_name_key(item.state) == key and item.number == current.number for item in seen):
            return
        others = [
            SeenCanary(item.state, item.ended or item.number < current.number)
            for item in kept
            if _name_key(item.state) != key
        ]
        self._remember(NewestCanaries(location, [current, *others]))

    def _list_seen(self, location: str) -> list[SeenCanary]:
        if self._newest is None and self._path is not None and self._path.is_file():
            with suppress(TunectlError):  # a file that was damaged remembers nothing
                self._newest = NEWEST_CANARY.read(self._path, NewestCanaries)
        return self._newest.seen if self._newest is not None and self._newest.location == location else []

    def _remember(self, newest: NewestCanaries) -> None:
        self._newest = newest
        if self._path is not None:
            with suppress(TunectlError):  # a disk that cannot be written: this process remembers it
                NEWEST_CANARY.write(self._path, newest)

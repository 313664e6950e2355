"""What serving, monitoring and packaging need of a registry, wherever it is."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from tunectl.artifacts.canary_state import CanaryState
from tunectl.registry.release_state import ChampionPointer, ReleaseEvent


class RegistryReader(Protocol):
    """What whoever serves or watches needs of a store; a folder is one (``release_store``), an address another (``remote``)."""

    @property
    def location(self) -> str:
        """Where it is, for people."""
        ...

    @property
    def warning(self) -> str:
        """Why the pointer that ``champion`` gave is not the one that lies there; empty where it is."""
        ...

    def ids(self) -> list[str]:
        """Return the names of all releases."""
        ...

    def champion(self) -> ChampionPointer | None:
        """Return the pointer; None before the first promotion."""
        ...

    def trial(self) -> CanaryState | None:
        """Return the challenger; None where there is none."""
        ...

    def folder(self, release: str) -> Path:
        """Return where its files are on this machine, once ``fetch`` has returned."""
        ...

    def fetch(self, release: str) -> Path:
        """Return its files on this machine; may take as long as a download."""
        ...

    def read_statement(self, release: str) -> bytes | None:
        """Return the signed statement about a release; None where there is none."""
        ...

    def log(self) -> list[ReleaseEvent]:
        """Return all events in order."""
        ...


class ObjectStore(Protocol):
    """Objects below an address; each is written whole. All methods raise  InfrastructureError where the place says no."""

    @property
    def address(self) -> str:
        """As it was given, without user and password."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return an object's content; None where there is none."""
        ...

    def names(self, folder: str) -> list[str]:
        """Return the names directly below a folder."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Make or replace an object."""
        ...

    def create(self, name: str, content: bytes) -> bool:
        """Make an object, whole or not at all; False where there is one of that name, which stays as it is."""
        ...

    def send(self, path: Path, name: str) -> None:
        """Copy a file there."""
        ...

    def fetch(self, name: str, path: Path) -> None:
        """Copy an object here."""
        ...

    def remove(self, name: str) -> None:
        """Delete an object, if it is there."""
        ...

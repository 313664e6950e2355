"""Protocols of registries for serving, monitoring and packaging, wherever the registry is."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from tunectl.artifacts.canary_state import CanaryState
from tunectl.registry.release_state import ChampionPointer, ReleaseEvent

MAX_RECORD_BYTES: Final = 1_000_000
"""Size limit of a pointer, and of any record without a limit of its own: whoever can write at an address could fill our memory with it."""
MAX_MANIFEST_BYTES: Final = 16_000_000
"""Size limit of a manifest and of a signed statement: both name every file, some hundred bytes each."""
MAX_HISTORY_BYTES: Final = 64_000_000
"""Size limit of all parts of a release history together, some hundred bytes per event."""


class RegistryReader(Protocol):
    """What a server or monitor needs of a registry; a folder is one (``release_store``), an address another (``remote``)."""

    @property
    def location(self) -> str:
        """Location of the registry, for people."""
        ...

    @property
    def warning(self) -> str:
        """Why ``champion`` did not return the stored pointer; empty where it did."""
        ...

    def ids(self) -> list[str]:
        """Return the names of all releases."""
        ...

    def champion(self) -> ChampionPointer | None:
        """Return the champion pointer; None before the first promotion."""
        ...

    def trial(self) -> CanaryState | None:
        """Return the challenger; None where there is none."""
        ...

    def folder(self, release: str) -> Path:
        """Return the folder that has the files of ``release`` on this machine, once ``fetch`` has returned."""
        ...

    def fetch(self, release: str) -> Path:
        """Fetch the files of ``release`` to this machine; may take as long as a download."""
        ...

    def read_statement(self, release: str) -> bytes | None:
        """Return the signed statement about a release; None where there is none."""
        ...

    def log(self) -> list[ReleaseEvent]:
        """Return all events in order."""
        ...


class ObjectStore(Protocol):
    """Objects below an address; each is written atomically. All methods raise  InfrastructureError where the store fails."""

    @property
    def address(self) -> str:
        """The address as given, without user and password."""
        ...

    def read(self, name: str, limit: int = MAX_RECORD_BYTES) -> bytes | None:
        """Return an object's content; None where there is none. Raises  ArtifactError for one of more than ``limit`` bytes."""
        ...

    def names(self, folder: str) -> list[str]:
        """Return the names directly below a folder."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Make or replace an object."""
        ...

    def create(self, name: str, content: bytes) -> bool:
        """Make an object atomically; False where one of that name exists, which is left unchanged."""
        ...

    def send(self, path: Path, name: str) -> None:
        """Copy a file to the address."""
        ...

    def fetch(self, name: str, path: Path, limit: int) -> int:
        """Copy an object here; returns its bytes. Raises  ArtifactError, and leaves nothing, where it has more than ``limit``."""
        ...

    def remove(self, name: str) -> None:
        """Delete an object, if it is there."""
        ...

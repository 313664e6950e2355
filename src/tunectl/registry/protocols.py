"""Protocols of registries for serving, monitoring and packaging, wherever the registry is."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from tunectl.artifacts.canary_state import CanaryState
from tunectl.registry.release_state import ChampionPointer, ReleaseEvent

MAX_RECORD_BYTES: Final = 1_000_000
"""Size limit of a pointer, and of any record without a limit of its own, so that others who write at an address cannot exhaust the memory of readers."""
MAX_MANIFEST_BYTES: Final = 16_000_000
"""Size limit of a manifest and of a signed statement: both name every file, some hundred bytes each."""
MAX_HISTORY_BYTES: Final = 64_000_000
"""Size limit of all parts of a release history together, some hundred bytes per event."""


class RegistryReader(Protocol):
    """Read access to a registry, for servers and monitors; a folder is one (``release_store``), an address another (``remote``)."""

    @property
    def location(self) -> str:
        """Folder or URL of the registry, for people."""
        ...

    @property
    def warning(self) -> str:
        """Reason why ``champion`` did not return the stored pointer; empty where it did."""
        ...

    def ids(self) -> list[str]:
        """Return the names of all releases."""
        ...

    def champion(self) -> ChampionPointer | None:
        """Return the champion pointer; None before the first promotion."""
        ...

    def canary(self) -> CanaryState | None:
        """Return the canary with its challenger; None where there is none."""
        ...

    def folder(self, release: str) -> Path:
        """Return the folder that has the files of ``release`` on this machine, once ``fetch`` has returned."""
        ...

    def fetch(self, release: str) -> Path:
        """Fetch the files of ``release`` to this machine and return their folder; may take as long as a download."""
        ...

    def read_statement(self, release: str) -> bytes | None:
        """Return the signed statement about a release (JSON of a DSSE envelope); None where there is none."""
        ...

    def log(self) -> list[ReleaseEvent]:
        """Return all events of the registry in order."""
        ...


class ObjectStore(Protocol):
    """Objects (named files) below an address; each is written atomically. All methods raise  InfrastructureError where the store fails."""

    @property
    def address(self) -> str:
        """URL as given, without user and password."""
        ...

    def read(self, name: str, limit: int = MAX_RECORD_BYTES) -> bytes | None:
        """Return an object's content; None where there is none. Raises  ArtifactError for one of more than ``limit`` bytes."""
        ...

    def names(self, folder: str) -> list[str]:
        """Return the names directly below a folder."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Create or replace the object ``name``."""
        ...

    def create(self, name: str, content: bytes) -> bool:
        """Create the object ``name`` atomically and return True; False where one exists, which is left unchanged."""
        ...

    def send(self, path: Path, name: str) -> None:
        """Copy the file ``path`` to the object ``name``."""
        ...

    def fetch(self, name: str, path: Path, limit: int) -> int:
        """Copy the object ``name`` to the file ``path`` and return its bytes.

        Raises  ArtifactError, and leaves nothing, where it has more than ``limit`` bytes.
        """
        ...

    def remove(self, name: str) -> None:
        """Delete an object, if it is there."""
        ...

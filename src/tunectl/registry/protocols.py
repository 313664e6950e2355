"""What serving, monitoring and packaging need of a registry, wherever it is."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from tunectl.artifacts.records import CanaryState
from tunectl.registry.release_state import ChampionPointer, ReleaseEvent


class RegistryReader(Protocol):
    """What whoever serves or watches needs of a store; a folder is one (``release_store``), an address another (``remote``)."""

    @property
    def location(self) -> str:
        """Where it is, for people."""
        ...

    def ids(self) -> list[str]:
        """Names of all releases."""
        ...

    def champion(self) -> ChampionPointer | None:
        """The pointer; None before the first promotion."""
        ...

    def trial(self) -> CanaryState | None:
        """The challenger; None where there is none."""
        ...

    def folder(self, release: str) -> Path:
        """Where its files are on this machine, once ``fetch`` has returned."""
        ...

    def fetch(self, release: str) -> Path:
        """Its files on this machine; may take as long as a download."""
        ...

    def log(self) -> list[ReleaseEvent]:
        """What happened, in order."""
        ...

"""Read a registry of which only what trusted keys signed is believed: for programs that follow it as servers do, and serve nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunectl.access.signatures import TrustStore
from tunectl.core.errors import GateError
from tunectl.registry import release_manifest, release_statement
from tunectl.registry.protocols import RegistryReader
from tunectl.registry.release_state import ChampionPointer

_HINT = "check who may write there; promote again with a trusted pointer key: tunectl release promote ID -m WHY"


class SignedRegistry:
    """A registry whose champion, and the files of whose champion, trusted keys must have signed (``registry.protocols.RegistryReader``)."""

    def __init__(self, registry: RegistryReader, trust: TrustStore) -> None:
        self._registry, self._trust = registry, trust
        self._followed: ChampionPointer | None = None

    def champion(self) -> ChampionPointer | None:
        """Return the champion pointer, or the newest one that was seen with a trusted signature where this one is older or has none.

        Raises  GateError where none with a trusted signature was seen.
        """
        pointer = self._registry.champion()
        if pointer is None:
            return self._followed
        status, reason = release_statement.check_pointer(pointer, self._trust)
        if status == "trusted" and (self._followed is None or pointer.sequence >= self._followed.sequence):
            self._followed = pointer
        if self._followed is None:
            raise GateError(
                f"the champion pointer of {self._registry.location} {reason}; it is not followed", hint=_HINT
            )
        return self._followed

    def fetch(self, release: str) -> Path:
        """Return the folder with the files of ``release``, as they were signed; a key that was revoked since counts, as for what serves.

        Raises  GateError where no key that is or was trusted signed them; ArtifactError, InfrastructureError as the registry.
        """
        checked = release_statement.check_statement(self._registry.read_statement(release), release, self._trust)
        if checked.statement is None:
            raise GateError(checked.reason, hint=f"sign it: tunectl release sign {release}")
        folder = self._registry.fetch(release)
        digest = self._followed.digest if self._followed is not None and self._followed.release == release else None
        release_statement.check_manifest(release_manifest.load(folder), digest, checked.statement)
        return folder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry, name)

"""Read a registry and refuse what no trusted key has signed.

For programs that follow the champion as servers do, and serve nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunectl.access.signatures import TrustStore
from tunectl.core import logging_setup
from tunectl.core.errors import GateError
from tunectl.registry import release_manifest, release_statement
from tunectl.registry.protocols import RegistryReader
from tunectl.registry.release_state import ChampionPointer
from tunectl.registry.sequence_guard import SequenceGuard

_HINT = "check who may write there; promote again with a trusted pointer key: tunectl release promote ID -m WHY"


class SignedRegistry:
    """A registry whose champion, and the files of whose champion, trusted keys must have signed (``registry.protocols.RegistryReader``)."""

    def __init__(self, registry: RegistryReader, trust: TrustStore, guard: SequenceGuard) -> None:
        """``guard`` stores the newest pointer that was followed; with a file also beyond this process."""
        self._registry, self._trust, self._guard = registry, trust, guard
        self._problem = ""
        """Why the registry's pointer was not followed last; it is logged once."""

    def champion(self) -> ChampionPointer | None:
        """Return the champion pointer, or the newest one that was seen with a trusted signature where this one is older or has none.

        Raises  GateError where none with a trusted signature was seen.
        """
        pointer, problem = self._guard.follow(self._registry.champion(), self._registry.location, self._trust)
        problem = problem or self._registry.warning
        if pointer is None and problem:
            raise GateError(f"no champion to follow: {problem}", hint=_HINT)
        if problem and problem != self._problem:
            logging_setup.get_logger(__name__).error("%s", problem)
        self._problem = problem
        return pointer

    def fetch(self, release: str) -> Path:
        """Return the folder with the files of ``release``, as they were signed; a key that was revoked since counts, as for what serves.

        Raises  GateError where no key that is or was trusted signed them; ArtifactError, InfrastructureError as the registry.
        """
        checked = release_statement.check_statement(self._registry.read_statement(release), release, self._trust)
        if checked.statement is None:
            raise GateError(checked.reason, hint=f"sign it: tunectl release sign {release}")
        folder = self._registry.fetch(release)
        newest = self._guard.find_newest(self._registry.location)
        digest = newest.digest if newest is not None and newest.release == release else None
        release_statement.check_manifest(release_manifest.load(folder), digest, checked.statement)
        return folder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry, name)

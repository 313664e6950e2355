"""Mirror the registry to ``serve.registry`` after each promotion or canary change."""

from __future__ import annotations

from tunectl.artifacts.canary_state import CanaryState
from tunectl.registry.release_state import ChampionPointer
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.registry.remote_sync import push


class Publisher:
    """Copies a release store to an address when one of its pointers has moved, and once at the start."""

    def __init__(self, store: ReleaseRegistry, location: str) -> None:
        """``location`` is the registry of the servers; where it is a folder, it is shared and nothing has to be copied."""
        self._store, self._address = store, location if "://" in location else None
        self._last_sync: tuple[ChampionPointer | None, CanaryState | None] | None = None

    def sync_if_changed(self) -> bool:
        """Copy new releases, history and pointers to the address; return whether anything had to be copied.

        Raises  GateError where another machine wrote there (``tunectl release pull``); InfrastructureError where the store fails; MissingExtraError without its driver; ArtifactError for a damaged release.
        """
        now = (self._store.champion(), self._store.canary())
        if self._address is None or now == self._last_sync:
            return False
        from tunectl.backends.storage.object_store import FsspecObjectStore

        push(self._store, FsspecObjectStore(self._address))
        self._last_sync = now
        return True

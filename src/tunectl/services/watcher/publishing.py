"""Servers that look at an address (``serve.store``) hear of what is promoted and tried in the folder here."""

from __future__ import annotations

from tunectl.artifacts.records import Trial
from tunectl.release.history import Champion
from tunectl.release.mirror import sync
from tunectl.release.store import Store


class Publisher:
    """Copies a release store to an address whenever one of its pointers has moved; once when it begins, too."""

    def __init__(self, store: Store, place: str) -> None:
        """``place`` is where servers look; a folder is theirs and ours, so nothing has to be copied."""
        self._store, self._address = store, place if "://" in place else None
        self._told: tuple[Champion | None, Trial | None] | None = None

    def publish(self) -> bool:
        """Copy what is not there yet; says whether anything had to be.

        Raises  EnvironmentFailure where the place says no; MissingExtra without its driver; ArtifactError for a damaged release.
        """
        now = (self._store.champion(), self._store.trial())
        if self._address is None or now == self._told:
            return False
        from tunectl.backends.fsspec_files import FsspecFiles

        sync(self._store, FsspecFiles(self._address))
        self._told = now
        return True

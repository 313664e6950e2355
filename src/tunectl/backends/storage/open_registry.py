"""A release store by its name in ``conf/``: a folder, or an address."""

from __future__ import annotations

from pathlib import Path

from tunectl.access.signatures import TrustStore
from tunectl.artifacts.paths import ProjectPaths
from tunectl.registry.protocols import RegistryReader
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.registry.remote import RemoteRegistry


def open_registry(address: str, home: Path, trust: TrustStore | None = None) -> RegistryReader:
    """Return the release registry in the folder ``address`` (relative to ``home``), or at that address in an object store.

    Copies of releases from an object store are kept in ``home``.
    Raises  UsageError for an unknown kind of address; MissingExtraError where its package is not installed.
    """
    if "://" not in address:
        return ReleaseRegistry(home / address, trust=trust)
    from tunectl.backends.storage.object_store import FsspecObjectStore

    return RemoteRegistry(FsspecObjectStore(address), ProjectPaths(home).remote, trust)

"""A release store by its name in ``conf/``: a folder, or an address."""

from __future__ import annotations

from pathlib import Path

from tunectl.artifacts.layout import Layout
from tunectl.release.mirror import Mirror
from tunectl.release.store import Served, Store


def opened(place: str, home: Path) -> Served:
    """The store in the folder ``place`` (relative to ``home``), or behind that address; ``home`` keeps what is brought from there.

    Raises  UsageError for a kind of address that nobody knows; MissingExtra where its package is not installed.
    """
    if "://" not in place:
        return Store(home / place)
    from tunectl.backends.fsspec_files import FsspecFiles

    return Mirror(FsspecFiles(place), Layout(home).mirror)

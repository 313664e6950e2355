"""The live store of the project, for words that only look: looking makes none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tunectl.artifacts.layout import Layout
from tunectl.core.errors import DataError

if TYPE_CHECKING:
    from tunectl.artifacts.records import Exchange
    from tunectl.config.live import Live
    from tunectl.live.store import LiveStore


@contextmanager
def kept(live: Live, layout: Layout) -> Iterator[LiveStore | None]:
    """The live store; None where nothing was kept yet.

    Raises  EnvironmentFailure where it cannot be had.
    """
    if _absent(live, layout) is not None:
        yield None
        return
    with opened(live, layout) as store:
        yield store


@contextmanager
def opened(live: Live, layout: Layout) -> Iterator[LiveStore]:
    """The live store.

    Raises  DataError where nothing was kept yet; EnvironmentFailure where it cannot be had.
    """
    from tunectl.backends import sqlalchemy_store
    from tunectl.live import identity

    absent = _absent(live, layout)
    if absent is not None:
        raise DataError(f"{absent}: nothing was kept yet", hint="serve the model: tunectl serve")
    with sqlalchemy_store.opened(identity.address(live), layout.root) as store:
        yield store


def exchange(store: LiveStore, name: str) -> Exchange | None:
    """The exchange of that id, or of the only id that begins so; None where there is none.

    Raises  DataError where several ids begin so.
    """
    found = store.exchange(name)
    if found is not None:
        return found
    names = store.beginning(name)
    if len(names) > 1:
        listed = ", ".join(names[:3]) + (", ..." if names[3:] else "")
        raise DataError(f"{name!r} begins several ids: {listed}", hint="give more of it")
    return store.exchange(names[0]) if names else None


def _absent(live: Live, layout: Layout) -> Path | None:
    """The file of the database, where it is one and is not there."""
    from tunectl.backends import sqlalchemy_tables
    from tunectl.live import identity

    file = sqlalchemy_tables.database_file(identity.address(live), layout.root)
    return None if file is None or file.is_file() else file

"""Servers for the fault tests: as few as can be, since each start costs seconds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving_process import Server

from tunectl.registry.release_store import ReleaseRegistry

RUNNING, WAITING = 4, 8


@pytest.fixture(scope="session")
def store(releases: tuple[Path, str, str], tmp_path_factory: pytest.TempPathFactory) -> ReleaseRegistry:
    """A release store that tests change and put back."""
    folder = tmp_path_factory.mktemp("faults") / "store"
    shutil.copytree(releases[0], folder)
    return ReleaseRegistry(folder)


@pytest.fixture(scope="session")
def server(store: ReleaseRegistry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that survives what is done to it."""
    folder = tmp_path_factory.mktemp("server")
    running = Server(
        folder, env={"TUNECTL_REGISTRY": str(store.root)}, limits__max_concurrency=RUNNING, limits__max_queue=WAITING
    )
    try:
        running.until_ready(240)
        yield running
    finally:
        running.stop()

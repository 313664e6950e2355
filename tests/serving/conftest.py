"""One real server for the tests that only ask, and releases of the tiny model for those that swap and break."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving_process import Server

from tunectl.registry.release_store import ReleaseRegistry


@pytest.fixture
def store(releases: tuple[Path, str, str], tmp_path: Path) -> ReleaseRegistry:
    """A copy of the store, to change."""
    shutil.copytree(releases[0], tmp_path / "store")
    return ReleaseRegistry(tmp_path / "store")


@pytest.fixture(scope="session")
def server(releases: tuple[Path, str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that is only asked."""
    running = Server(
        tmp_path_factory.mktemp("server"), env={"TUNECTL_REGISTRY": str(releases[0])}, limits__max_concurrency=4
    )
    try:
        running.until_ready(240)
        yield running
    finally:
        running.stop()

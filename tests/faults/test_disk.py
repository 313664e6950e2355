"""A server whose engine hangs, whose disk is full, slow or read-only under both policies, and whose database goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from postgres_server import Postgres
from scenarios import disk, stream_endings
from scenarios.disk import SmallDisk, small_disk
from scenarios.fault_result import FaultResult
from serving_process import Server

from tunectl.registry.release_store import ReleaseRegistry

pytestmark = pytest.mark.timeout(600)
PATIENCE = 0.5
INJECT = Path(disk.__file__).parent / "inject"


@contextmanager
def serving(store: ReleaseRegistry, small: SmallDisk, folder: Path, policy: str, **serve: object) -> Iterator[Server]:
    (folder / "inject").mkdir(parents=True)
    env = {
        "TUNECTL_REGISTRY": str(store.root),
        "TUNECTL_INFERENCE_LOG_URL": f"sqlite:///{small.folder}/inference_log.sqlite",
        "TUNECTL_INJECT": str(folder / "inject"),
        "PYTHONPATH": str(INJECT),
    }
    running = Server(
        folder, env=env, inference_log__disk_full=policy, inference_log__write_timeout_seconds=PATIENCE, **serve
    )
    try:
        running.until_ready(240)
        yield running
    finally:
        running.stop()


def kept(found: FaultResult) -> None:
    assert not found.wrong, found


def test_serve_and_count_and_an_engine_that_hangs(store: ReleaseRegistry, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as small:
        limits = {"limits__max_concurrency": 4, "limits__max_queue": 2, "limits__request_timeout_seconds": 2.0}
        found = disk.new_result("serve_and_count")
        with serving(store, small, tmp_path / "server", "serve_and_count", **limits) as server:
            hung = asyncio.run(
                stream_endings.hang(server, tmp_path / "server/inject", running=4, waiting=2, seconds=2.0)
            )
            asyncio.run(stream_endings.unread(server, hung, running=4, seconds=2.0))
            kept(hung)
            asyncio.run(disk.full(found, server, small, policy="serve_and_count", patience=PATIENCE, requests=4))
            inject = tmp_path / "server/inject"
            asyncio.run(disk.slow(found, server, small, inject, policy="serve_and_count", patience=PATIENCE))
        if small.read_only():
            env = {
                "TUNECTL_REGISTRY": str(store.root),
                "TUNECTL_INFERENCE_LOG_URL": f"sqlite:///{small.folder}/inference_log.sqlite",
            }
            asyncio.run(disk.read_only(found, Server(tmp_path / "third", env=env), small))
        kept(found)


def test_refuse(store: ReleaseRegistry, tmp_path: Path) -> None:
    found = disk.new_result("refuse")
    with small_disk(tmp_path / "disk") as small, serving(store, small, tmp_path / "server", "refuse") as server:
        asyncio.run(disk.full(found, server, small, policy="refuse", patience=PATIENCE, requests=4))
    kept(found)


def test_a_database_that_goes_away_and_comes_back(store: ReleaseRegistry, postgres: Postgres, tmp_path: Path) -> None:
    found, url = disk.new_result("serve_and_count"), postgres.database("faults")
    env = {"TUNECTL_REGISTRY": str(store.root), "TUNECTL_INFERENCE_LOG_URL": url}
    server = Server(
        tmp_path / "server",
        env=env,
        inference_log__disk_full="serve_and_count",
        inference_log__write_timeout_seconds=PATIENCE,
    )
    try:
        server.until_ready(240)
        asyncio.run(disk.away(found, server, postgres, url, patience=PATIENCE, requests=4))
    finally:
        server.stop()
    kept(found)

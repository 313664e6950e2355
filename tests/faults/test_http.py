"""A server against what people ask of it: too much, too long, nonsense, and personal data. ``make faults``: the full counts."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from scenarios import malformed_requests, metric_cardinality, overload, pii_leaks, server_kills, soak, stream_endings
from scenarios.fault_result import FaultResult
from serving_process import Server

from tunectl.registry.release_store import ReleaseRegistry

pytestmark = pytest.mark.timeout(600)
RUNNING, WAITING = 4, 8


def kept(found: FaultResult) -> None:
    """No promise was broken. Times are judged by ``make faults`` on a quiet machine."""
    assert not found.wrong, found


def test_stock_clients_at_twice_the_load_are_answered(server: Server) -> None:
    kept(asyncio.run(overload.stock_clients(server, places=RUNNING + WAITING, each=2)))


def test_who_leaves_frees_the_place(server: Server) -> None:
    async def both() -> FaultResult:
        found = await stream_endings.disconnects(server, 4)
        await stream_endings.leaving_the_queue(server, found, running=RUNNING)
        return found

    kept(asyncio.run(both()))


def test_made_up_paths_and_models_leave_no_trace(server: Server) -> None:
    kept(asyncio.run(metric_cardinality.made_up(server, paths=100, models=10)))


def test_no_key_no_entry_and_hostile_bodies_are_refused(server: Server) -> None:
    async def every() -> FaultResult:
        found = malformed_requests.new_result(50)
        await malformed_requests.doors(server, found)
        await malformed_requests.hostile(server, found, mutants=50)
        await malformed_requests.slow_bodies(server, found, 40)
        return found

    kept(asyncio.run(every()))


def test_personal_data_is_nowhere_afterwards(server: Server) -> None:
    kept(asyncio.run(pii_leaks.canaries(server, server.folder, 3)))


def test_honest_requests_lose_nothing_beside_hostile_clients(server: Server) -> None:
    kept(asyncio.run(soak.soak(server, seconds=8, quiet=2, slow=100)))


def test_broken_adapters_are_refused(server: Server, store: ReleaseRegistry, tmp_path: Path) -> None:
    from scenarios import adapters

    kept(asyncio.run(adapters.bad_adapters(server, store, tmp_path)))


def test_neighbors_overload_kills_and_the_end(server: Server, store: ReleaseRegistry, tmp_path: Path) -> None:
    """One more server, without places to wait: beside the first, overloaded, killed, started again, stopped with streams open."""
    env = {"TUNECTL_REGISTRY": str(store.root), "BENTOML_HOME": str(server.folder / "bentoml")}
    other = Server(
        tmp_path / "other", env=env, limits__max_concurrency=8, limits__max_queue=0, shutdown__pre_stop_seconds=1
    )
    try:
        other.until_ready(240)
        kept(asyncio.run(overload.overload(other, running=8, seconds=4, quiet=2, least=150)))
        killed, stopped = server_kills.new_worker_result(), stream_endings.new_result()
        asyncio.run(server_kills.killed_worker(killed, other))
        kept(killed)
        lost = server_kills.new_server_result()
        asyncio.run(server_kills.killed_server(lost, other, random.Random(23)))
        kept(lost)
        beside = asyncio.run(server_kills.neighbors(server, other))
        asyncio.run(stream_endings.stopping(stopped, other, notice=1))
        kept(stopped)
        asyncio.run(server_kills.alone_again(beside, server))
        kept(beside)
    finally:
        other.stop()
    env["TUNECTL_INFERENCE_LOG_URL"] = f"sqlite:///{server.folder}/.tunectl/inference_log/inference_log.sqlite"
    asyncio.run(server_kills.refused_neighbor(beside, server, Server(tmp_path / "third", env=env)))
    kept(beside)

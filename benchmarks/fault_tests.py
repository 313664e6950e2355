"""Fault tests 1 to 13 and 34 of the server at full counts, as real processes on loopback, and their table.

    python benchmarks/fault_tests.py [--only 1 --only 9] [--scale 0.1] [--keep]

Each scenario and its target: tests/support/scenarios/. Exit code 1 if a target was missed. Takes about half an
hour on two quiet cores; ``--scale`` takes that share of the counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent / "tests" / "support")]

from hardware_info import machine, versions  # noqa: E402
from kill_writer import killed  # noqa: E402
from postgres_server import Postgres, run_postgres  # noqa: E402
from scenarios import (  # noqa: E402
    adapters,
    disk,
    fault_report,
    malformed_requests,
    metric_cardinality,
    overload,
    pii_leaks,
    revoked_keys,
    server_kills,
    stream_endings,
)
from scenarios.fault_result import FaultResult  # noqa: E402
from serving_process import Server  # noqa: E402
from tiny_release import prepare_store  # noqa: E402

from tunectl.backends.system import terminal  # noqa: E402
from tunectl.core import progress  # noqa: E402
from tunectl.registry.release_store import ReleaseRegistry  # noqa: E402

INJECT = HERE.parent / "tests" / "support" / "scenarios" / "inject"
RESULT = HERE / "results" / "fault_tests"
"""The numbers (.json) and the table (.md) that are kept."""
WRITE_TIMEOUT_SECONDS = 1.0


@dataclass
class ServerFaultWorkspace:
    """The folder, registry and scale of a run, and its servers."""

    folder: Path
    store: ReleaseRegistry
    scale: float
    count: int = 0

    def scale_count(self, count: int) -> int:
        """Return a full count times the scale."""
        return max(2, round(count * self.scale))

    @contextmanager
    def server(self, *, env: dict[str, str] | None = None, grace: int = 30, **serve: Any) -> Iterator[Server]:
        """Start a new server, wait until it is ready, and stop it at the end."""
        self.count += 1
        environment = {"TUNECTL_REGISTRY": str(self.store.root), **(env or {})}
        server = Server(self.folder / f"server{self.count}", env=environment, grace=grace, **serve)
        try:
            server.until_ready(600)
            yield server
        finally:
            server.stop(seconds=90)


def run_overload(workspace: ServerFaultWorkspace) -> Iterator[FaultResult]:
    """1: more requests than capacity."""
    with workspace.server(limits__max_concurrency=8, limits__max_queue=0) as server:
        seconds = max(5.0, 60 * workspace.scale)
        yield asyncio.run(overload.overload(server, running=8, seconds=seconds, quiet=max(3.0, 20 * workspace.scale)))


def run_stock_clients(workspace: ServerFaultWorkspace) -> Iterator[FaultResult]:
    """2: the stock client under overload."""
    with workspace.server(limits__max_concurrency=4, limits__max_queue=8) as server:
        yield asyncio.run(overload.stock_clients(server, places=12, each=workspace.scale_count(20)))


def run_shutdowns(workspace: ServerFaultWorkspace) -> Iterator[FaultResult]:
    """3: SIGTERM with open streams, within the grace and beyond it."""
    result = stream_endings.new_result()
    for _ in range(workspace.scale_count(10)):
        with workspace.server(shutdown__pre_stop_seconds=1, limits__max_concurrency=8) as server:
            asyncio.run(stream_endings.stopping(result, server, notice=1))
    with workspace.server(grace=3, limits__max_concurrency=8) as server:
        asyncio.run(stream_endings.beyond_grace(result, server, grace=3))
    yield result


def run_disconnects(workspace: ServerFaultWorkspace) -> Iterator[FaultResult]:
    """4: clients that disconnect, from their stream and from the queue."""
    with workspace.server(limits__max_concurrency=4) as server:
        result = asyncio.run(stream_endings.disconnects(server, workspace.scale_count(100)))
        asyncio.run(stream_endings.leaving_the_queue(server, result, running=4))
        yield result


def run_hangs(workspace: ServerFaultWorkspace) -> Iterator[FaultResult]:
    """5: an engine that hangs, and clients that do not read."""
    inject = workspace.folder / "hang"
    inject.mkdir()
    env = {"TUNECTL_INJECT": str(inject), "PYTHONPATH": str(INJECT)}
    with workspace.server(
        env=env, limits__max_concurrency=4, limits__max_queue=4, limits__request_timeout_seconds=2.0
    ) as server:
        result = asyncio.run(stream_endings.hang(server, inject, running=4, waiting=4, seconds=2.0))
        asyncio.run(stream_endings.unread(server, result, running=4, seconds=2.0))
        yield result


def run_worker_kills(workspace: ServerFaultWorkspace) -> Iterator[FaultResult]:
    """6: kill -9 of a worker."""
    result = server_kills.new_worker_result()
    with workspace.server() as server:
        for _ in range(workspace.scale_count(5)):
            asyncio.run(server_kills.killed_worker(result, server))
    yield result


def run_hostile_requests(workspace: ServerFaultWorkspace) -> Iterator[FaultResult]:
    """7, 10 and 13 on one server."""
    with workspace.server(limits__max_concurrency=4) as server:
        yield asyncio.run(
            metric_cardinality.made_up(server, paths=workspace.scale_count(10_000), models=workspace.scale_count(1_000))
        )
        count = workspace.scale_count(2_000)
        result = malformed_requests.new_result(count)
        asyncio.run(malformed_requests.doors(server, result))
        asyncio.run(malformed_requests.hostile(server, result, mutants=count))
        asyncio.run(malformed_requests.slow_bodies(server, result, 200))
        yield result
        yield asyncio.run(pii_leaks.canaries(server, server.folder, workspace.scale_count(100)))


def run_two_servers(workspace: ServerFaultWorkspace) -> Iterator[FaultResult]:
    """8: two servers on one host, and a second one on a database that is in use."""
    shared = {"BENTOML_HOME": str(workspace.folder / "shared")}
    with workspace.server(env=shared) as first:
        first.call("/v1/completions", {"model": "shop", "prompt": "a", "max_tokens": 1, "ignore_eos": True})
        with workspace.server(env=shared) as second:
            result = asyncio.run(server_kills.neighbors(first, second))
        asyncio.run(server_kills.alone_again(result, first))
        log_env = {"TUNECTL_INFERENCE_LOG_URL": f"sqlite:///{first.folder}/.tunectl/inference_log/inference_log.sqlite"}
        env = {"TUNECTL_REGISTRY": str(workspace.store.root), **log_env}
        asyncio.run(server_kills.refused_neighbor(result, first, Server(workspace.folder / "refused", env=env)))
        yield result


def run_bad_adapters(workspace: ServerFaultWorkspace) -> Iterator[FaultResult]:
    """9: damaged, foreign and ignored adapters."""
    with workspace.server() as server:
        yield asyncio.run(adapters.bad_adapters(server, workspace.store, workspace.folder / "bad"))


def run_log_kills(workspace: ServerFaultWorkspace) -> Iterator[FaultResult]:
    """11: kill -9 of a writer on either database, and of the whole server."""
    yield _kill_writers(workspace, "SQLite", f"sqlite:///{workspace.folder}/kills.sqlite")
    with run_postgres() as postgres:
        if postgres is not None:
            yield _kill_writers(workspace, "PostgreSQL", postgres.database("kill"))
    result, chance = server_kills.new_server_result(), random.Random(23)
    with workspace.server() as server, progress.bar("kills, whole server", workspace.scale_count(20)) as bar:
        for _ in range(workspace.scale_count(20)):
            asyncio.run(server_kills.killed_server(result, server, chance))
            bar.advance(1)
    yield result


def _kill_writers(workspace: ServerFaultWorkspace, name: str, url: str) -> FaultResult:
    runs = workspace.scale_count(200)
    result = FaultResult(11, f"kill -9, {name}", f"{runs} kills: no confirmed row is missing")
    with progress.bar(f"kills, {name}", runs) as bar:
        for run in killed(url, workspace.folder, runs, seed=17):
            bar.advance(1)
            result.require(not run.missing, f"missing: {run.missing[:3]}")
            for key in ("accepted", "finished", "feedback", "running"):
                result.figures[key] = result.figures.get(key, 0) + getattr(run, key)
    return result


def run_disk_faults(workspace: ServerFaultWorkspace) -> Iterator[FaultResult]:
    """12: full, slow and read-only disks, and a database that goes away."""
    for policy in ("serve_and_count", "refuse"):
        result, inject = disk.new_result(policy), workspace.folder / f"slow-{policy}"
        inject.mkdir()
        with disk.small_disk(workspace.folder / f"disk-{policy}") as small:
            env = {"TUNECTL_INJECT": str(inject), "PYTHONPATH": str(INJECT)}
            env["TUNECTL_INFERENCE_LOG_URL"] = f"sqlite:///{small.folder}/inference_log.sqlite"
            with workspace.server(
                env=env, inference_log__disk_full=policy, inference_log__write_timeout_seconds=WRITE_TIMEOUT_SECONDS
            ) as server:
                for _ in range(workspace.scale_count(5)):
                    full = disk.full(result, server, small, policy=policy, patience=WRITE_TIMEOUT_SECONDS, requests=8)
                    asyncio.run(full)
                asyncio.run(disk.slow(result, server, small, inject, policy=policy, patience=WRITE_TIMEOUT_SECONDS))
            if small.read_only():
                read_only_env = {
                    "TUNECTL_REGISTRY": str(workspace.store.root),
                    "TUNECTL_INFERENCE_LOG_URL": env["TUNECTL_INFERENCE_LOG_URL"],
                }
                read_only = Server(workspace.folder / f"read-only-{policy}", env=read_only_env)
                asyncio.run(disk.read_only(result, read_only, small))
        yield result
    with run_postgres() as postgres:
        if postgres is not None:
            yield _stop_database(workspace, postgres)


def _stop_database(workspace: ServerFaultWorkspace, postgres: Postgres) -> FaultResult:
    result = FaultResult(12, "a database that stops", "served, counted, and written when it is back")
    url = postgres.database("away")
    with workspace.server(
        env={"TUNECTL_INFERENCE_LOG_URL": url}, inference_log__write_timeout_seconds=WRITE_TIMEOUT_SECONDS
    ) as server:
        for _ in range(workspace.scale_count(5)):
            asyncio.run(disk.away(result, server, postgres, url, patience=WRITE_TIMEOUT_SECONDS, requests=8))
    return result


def run_revoked_key(workspace: ServerFaultWorkspace) -> Iterator[FaultResult]:
    """34: a release key that is revoked between canary and promotion."""
    folder = workspace.folder / "revoked"
    shutil.copytree(workspace.store.root, folder / "store")
    store = ReleaseRegistry(folder / "store")
    champion = store.find("champion")
    challenger = next(release for release in store.ids() if release != champion)
    yield revoked_keys.revoke_in_canary(folder, store, champion, challenger)


SCENARIOS: tuple[tuple[tuple[int, ...], Callable[[ServerFaultWorkspace], Iterator[FaultResult]]], ...] = (
    ((1,), run_overload), ((2,), run_stock_clients), ((3,), run_shutdowns), ((4,), run_disconnects), ((5,), run_hangs), ((6,), run_worker_kills), ((7, 10, 13), run_hostile_requests),
    ((8,), run_two_servers), ((9,), run_bad_adapters), ((11,), run_log_kills), ((12,), run_disk_faults), ((34,), run_revoked_key),
)  # fmt: skip


def main() -> int:
    """Run, print a line a scenario and the table, keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=int, action="append", help="this fault test; again for more")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the counts")
    parser.add_argument("--store", type=Path, help="a release store to serve from, in place of a tiny model's")
    parser.add_argument(
        "--keep", action="store_true", help="write benchmarks/results/fault_tests.json and .md; with --only these rows"
    )
    args = parser.parse_args()
    terminal.install_progress()
    folder = Path(tempfile.mkdtemp(prefix="tunectl-faults-"))
    store = prepare_store(folder, args.store)
    workspace = ServerFaultWorkspace(folder, ReleaseRegistry(store), args.scale)
    rows = [row for row in SCENARIOS if not args.only or set(row[0]) & set(args.only)]
    results = fault_report.run_scenarios(rows, workspace)
    shutil.rmtree(folder, ignore_errors=True)
    print("\n".join(fault_report.format_table(results)))
    result = {"machine": machine(), "versions": versions("bentoml", "torch", "uvicorn"), "scale": args.scale}
    result["rows"] = [{**asdict(each), "held": each.held} for each in results]
    if args.keep:
        fault_report.write_results(result, RESULT, others=bool(args.only))
    print(json.dumps(result))
    return 0 if all(each.held for each in results) else 1


if __name__ == "__main__":
    sys.exit(main())

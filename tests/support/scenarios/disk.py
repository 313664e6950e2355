"""An inference log whose disk is full, read-only or slow, or whose database server goes away (fault 12)."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

from postgres_server import Postgres
from serving_process import Server

from scenarios.fault_result import FaultResult, quantile
from scenarios.load_patterns import CHAT, chat
from scenarios.process_inspection import faults_in, until, worker
from scenarios.raw_http_client import Reply, ask
from scenarios.stream_endings import scraped
from tunectl.backends.storage import inference_log_sql

ERRORS = "tunectl_inference_log_errors_total"
SLACK = 1.0
"""Seconds beside the declared patience."""


class SmallDisk:
    """A file system of a few megabytes; where none can be mounted, a bound on the size of the server's files."""

    def __init__(self, folder: Path, megabytes: int = 6) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._ballast = folder, folder / "ballast"
        words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
        self.mounted = subprocess.run(words, capture_output=True).returncode == 0

    def fill(self, server: Server) -> None:
        """No byte more."""
        if not self.mounted:
            resource.prlimit(worker(server), resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            return
        with contextlib.suppress(OSError), self._ballast.open("ab", buffering=0) as ballast:
            while True:
                ballast.write(b"x" * 4096)
        with contextlib.suppress(OSError), self._ballast.open("ab", buffering=0) as ballast:
            while True:
                ballast.write(b"x")

    def free(self, server: Server) -> None:
        """As before."""
        if self.mounted:
            self.free_ballast()
        else:
            resource.prlimit(worker(server), resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)

    def add_ballast(self, size: int) -> None:
        """So many bytes less."""
        with self._ballast.open("ab", buffering=0) as ballast:
            ballast.write(b"x" * size)

    def free_ballast(self) -> None:
        """All bytes again."""
        self._ballast.unlink(missing_ok=True)

    def read_only(self) -> bool:
        """Let nobody write; False where that cannot be had here. Nothing may be open for writing."""
        words = ["mount", "-o", "remount,ro", str(self.folder)]
        return self.mounted and subprocess.run(words, capture_output=True).returncode == 0

    def close(self) -> None:
        """Give it back."""
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], capture_output=True)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(folder)
    try:
        yield disk
    finally:
        disk.close()


def new_result(policy: str) -> FaultResult:
    return FaultResult(
        12, f"full and slow disk, {policy}", "the declared policy holds, the counter rises, the latency bound is kept"
    )


async def full(
    found: FaultResult, server: Server, disk: SmallDisk, *, policy: str, patience: float, requests: int
) -> None:
    """Fill the disk, ask, free it, ask again: as ``policy`` says, and nothing that was confirmed is lost."""
    log = server.log.stat().st_size
    usual = [(await _asked(server)).done for _ in range(3)]
    before = (await scraped(server))[ERRORS]
    disk.fill(server)
    replies = await asyncio.gather(*(_asked(server) for _ in range(requests)))
    errors = (await scraped(server))[ERRORS] - before
    _as_declared(found, replies, policy)
    found.require(errors >= requests, f"{errors:g} errors counted for {requests} requests")
    found.require_at_most(
        f"{policy}_full_worst_s", max(one.done for one in replies), max(usual) * requests + 2 * patience + SLACK
    )
    disk.free(server)

    async def writes_again() -> bool:
        return b"the inference log writes again" in server.log.read_bytes()[log:]

    for _ in range(3):
        await _asked(server)
    waited = await until(writes_again, 15, every=0.2)
    found.require(waited <= 15, "it does not write again though there is room")
    later = await _asked(server)
    found.require(later.status == 200, f"with room again it answers {later.status}")
    ids = {_id(reply) for reply in [*replies, later] if reply.status == 200}
    missing = await _missing(server, disk, ids)
    found.require(not missing, f"{len(missing)} of {len(ids)} answered inferences are not in the store with room again")
    found.figures |= {
        f"{policy}_errors": errors,
        f"{policy}_kept_late": len(ids) - len(missing),
        "mounted": disk.mounted,
    }
    for line in faults_in(server, log):
        found.require(False, line)


async def slow(
    found: FaultResult, server: Server, disk: SmallDisk, inject: Path, *, policy: str, patience: float
) -> None:
    """Each transaction takes two seconds more."""
    usual = [(await _asked(server)).done for _ in range(3)]
    before = (await scraped(server))[ERRORS]
    (inject / "slow").write_text("2")
    replies = await asyncio.gather(*(_asked(server) for _ in range(4)))
    (inject / "slow").unlink()
    errors = (await scraped(server))[ERRORS] - before
    found.require(errors >= len(replies), f"slow: {errors:g} errors for {len(replies)} requests")
    _as_declared(found, replies, policy)
    worst = max(one.done for one in replies)
    found.require_at_most(f"{policy}_slow_worst_s", worst, quantile(usual, 1.0) * 4 + 2 * patience + SLACK)
    ids = {_id(reply) for reply in replies if reply.status == 200}
    missing = await _missing(server, disk, ids)
    found.require(not missing, f"slow: {len(missing)} of {len(ids)} answered inferences never came into the store")


def _as_declared(found: FaultResult, replies: list[Reply], policy: str) -> None:
    for reply in replies:
        if policy == "refuse":
            right = reply.status == 503 and reply.error.get("code") == "not_kept" and "retry-after" in reply.headers
        else:
            right = reply.status == 200
        found.require(right, f"with policy {policy} a request got {reply.status} {reply.body[:100]!r}")


async def _asked(server: Server) -> Reply:
    return await ask(server.port, CHAT, server.keys["chat"], chat(2, stream=False))


def _id(reply: Reply) -> str:
    import json

    return str(json.loads(reply.body)["id"])


async def _missing(server: Server, disk: SmallDisk, ids: set[str]) -> set[str]:
    """Ids that are not finished in the database after some seconds."""
    left = set(ids)

    async def all_there() -> bool:
        nonlocal left
        with sqlite3.connect(f"file:{disk.folder}/inference_log.sqlite?mode=ro", uri=True) as connection:
            rows = connection.execute("SELECT id FROM inferences WHERE finished_at IS NOT NULL").fetchall()
        connection.close()
        left = ids - {row[0] for row in rows}
        return not left

    await until(all_there, 20, every=0.2)
    return left


async def away(
    found: FaultResult, server: Server, postgres: Postgres, url: str, *, patience: float, requests: int
) -> None:
    """The database server dies and comes back: requests are served and counted meanwhile, and nothing of them is lost."""
    log = server.log.stat().st_size
    usual = [(await _asked(server)).done for _ in range(3)]
    before = (await scraped(server))[ERRORS]
    await asyncio.to_thread(postgres.stop)
    try:
        replies = await asyncio.gather(*(_asked(server) for _ in range(requests)))
        errors = (await scraped(server))[ERRORS] - before
    finally:
        await asyncio.to_thread(postgres.start)
    _as_declared(found, replies, "serve_and_count")
    found.require(errors >= requests, f"without a database {errors:g} errors were counted for {requests} requests")
    found.require_at_most(
        "away_worst_s", max(one.done for one in replies), max(usual) * requests + 2 * patience + SLACK
    )
    later = await _asked(server)
    ids = {_id(reply) for reply in [*replies, later] if reply.status == 200}

    def finished() -> set[str]:
        with inference_log_sql.open_log(url, Path()) as store:
            return {one.id for one in store.inferences() if one.finished_at is not None}

    async def all_there() -> bool:
        return ids <= await asyncio.to_thread(finished)

    found.require(await until(all_there, 60, every=0.5) <= 60, "answered inferences never came into the database")
    found.require(
        b"the inference log writes again" in server.log.read_bytes()[log:], "it does not say that it writes again"
    )
    found.figures |= {"away_errors": errors, "away_kept_late": len(ids)}
    for line in faults_in(server, log):
        found.require(False, line)


async def read_only(found: FaultResult, start: Server, disk: SmallDisk) -> None:
    """A server that is started on an inference log which cannot be written ends at once and says why."""
    code = await asyncio.to_thread(start.process.wait, 60)
    found.require(code not in (0, None), f"on a read-only disk it ended with {code}")
    said = [line for line in start.log.read_text().splitlines() if "the server cannot start" in line]
    found.require(len(said) == 1 and str(disk.folder) in said[0], f"on a read-only disk it says: {said}")
    found.figures["read_only_exit"] = code

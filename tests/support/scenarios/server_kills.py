"""Processes that are killed, and two servers that share a host (faults 6, 8 and 11)."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import sqlite3
import time
from pathlib import Path

from serving_process import Server

from scenarios.fault_result import FaultResult
from scenarios.load_patterns import CHAT, chat
from scenarios.process_inspection import alive, children, kill, until, worker
from scenarios.raw_http_client import Line, ask, request
from scenarios.stream_endings import scraped

ENDED = 'tunectl_requests_total{finished_reason="length"}'
END, AGAIN, ORPHAN = 15.0, 60.0, 10.0
"""Seconds: from the kill to the end of the program, from its start to ready, from the supervisor's death to the worker's."""


def new_worker_result() -> FaultResult:
    return FaultResult(
        6,
        "kill -9 of the engine, the worker, the supervisor; an empty .db file",
        "it answers again: by itself without its engine, else when started; /metrics works; no orphan",
    )


async def killed_worker(found: FaultResult, server: Server) -> None:
    """Kill the engine; the worker, and start again as a supervisor would; the supervisor. The server runs afterwards."""
    await _killed_engine(found, server)
    engines, start = children(worker(server)), time.monotonic()
    kill(worker(server))
    code = await asyncio.to_thread(server.process.wait, 60)
    found.require(code != 0, "the program ended with 0 though its worker was killed")
    found.require_at_most("end_s", time.monotonic() - start, END)
    found.require(not [pid for pid in engines if alive(pid)], "the engine outlives the worker")
    await _again(found, server)
    plant = server.folder / "bentoml" / "prometheus_multiproc_dir"
    plant.mkdir(parents=True, exist_ok=True)
    (plant / "counter_1.db").touch()
    said = await ask(server.port, "/metrics", server.keys["scrape"])
    found.require(said.status == 200 and b"tunectl_requests_total" in said.body, f"/metrics answers {said.status}")
    pid, start = worker(server), time.monotonic()
    kill(server.process.pid)
    await asyncio.to_thread(server.process.wait, 60)

    async def ended() -> bool:
        return not alive(pid)

    found.require_at_most("orphan_s", await until(ended, 4 * ORPHAN), ORPHAN)
    if alive(pid):
        found.require(False, "the worker outlives its supervisor")
        kill(pid)
    await _again(found, server)


async def _killed_engine(found: FaultResult, server: Server) -> None:
    """The process of the engine, where it has one, dies in the middle of a stream: its client hears so, later ones are answered."""
    pid = worker(server)
    if not children(pid):
        return
    line = await Line.open(server.port, request(CHAT, server.keys["chat"], chat(200)))
    await line.head()
    await line.part()
    for engine in children(pid):
        kill(engine)
    cut = await line.rest()
    found.require(
        not cut.streamed and b"was ended by signal 9" in cut.body, f"of the engine's death it heard {cut.body[-200:]!r}"
    )

    async def answers() -> bool:
        return (await ask(server.port, CHAT, server.keys["chat"], chat(2))).streamed

    found.require_at_most("engine_again_s", await until(answers, 240, every=0.1), AGAIN)
    found.require(worker(server) == pid, "the worker died of its engine's death")


async def _again(found: FaultResult, server: Server) -> None:
    start = time.monotonic()
    server.start()
    await asyncio.to_thread(server.until_ready, 240)
    found.require_at_most("ready_again_s", time.monotonic() - start, AGAIN)
    reply = await ask(server.port, CHAT, server.keys["chat"], chat(2))
    found.require(reply.streamed, f"started again it answers {reply.status}")


async def neighbors(first: Server, second: Server) -> FaultResult:
    """Two servers with one BENTOML_HOME: each keeps its own numbers.

    ``first`` was asked before ``second`` was started. Stop that one, then call ``alone_again``.
    """
    found = FaultResult(8, "two servers on one host, one BENTOML_HOME", "neither loses metrics")
    before = [(await scraped(server))[ENDED] for server in (first, second)]
    found.require(before[0] > 0, "the first server forgot what it had counted when the second was started")
    for turn, server in enumerate((first, second, second)):
        reply = await ask(server.port, CHAT, server.keys["chat"], chat(2))
        found.require(reply.streamed, f"request {turn} got {reply.status}")
    after = [(await scraped(server))[ENDED] for server in (first, second)]
    more = [late - early for late, early in zip(after, before, strict=True)]
    found.require(more == [1, 2], f"the two counted {more} requests, not [1, 2]")
    found.figures |= {"first": after[0], "second": after[1]}
    return found


async def alone_again(found: FaultResult, first: Server) -> None:
    """The other one has stopped: the first has its numbers still."""
    left = (await scraped(first))[ENDED]
    found.require(left == found.figures["first"], "the first server lost its numbers when the second stopped")


async def refused_neighbor(found: FaultResult, first: Server, third: Server) -> None:
    """A server that would write to the inference log of another one ends at once and says why."""
    code = await asyncio.to_thread(third.process.wait, 60)
    found.require(code not in (0, None), f"a second writer of one inference log ends with {code}")
    found.require(
        "another server writes to this inference log" in third.log.read_text(), "it does not say why it ended"
    )
    reply = await ask(first.port, CHAT, first.keys["chat"], chat(2))
    found.require(reply.streamed, "the first server suffers")


def new_server_result() -> FaultResult:
    return FaultResult(11, "kill -9 of the whole server under load", "no acknowledged inference is missing; ids unique")


async def killed_server(found: FaultResult, server: Server, chance: random.Random, *, clients: int = 4) -> None:
    """Kill worker and supervisor at a random moment, read the inference log, start again."""
    answered, begun = set[str](), set[str]()
    pid = worker(server)

    async def client() -> None:
        while alive(pid):
            try:
                line = await Line.open(server.port, request(CHAT, server.keys["chat"], chat(24)))
                await line.head()
                await line.part()
            except (OSError, ValueError, asyncio.IncompleteReadError):
                return
            if line.reply.status != 200:
                await line.rest()
                continue
            name = json.loads(line.reply.events[0])["id"]
            begun.add(name)
            if (await line.rest()).streamed:
                answered.add(name)

    people = [asyncio.create_task(client()) for _ in range(clients)]
    await asyncio.sleep(0.5 + 2 * chance.random())
    kill(server.process.pid)
    kill(pid)
    await asyncio.gather(*people)
    await asyncio.to_thread(server.process.wait, 60)
    accepted, finished, twice = read_rows(server.folder / ".tunectl/inference_log/inference_log.sqlite")
    found.require(answered <= finished, f"missing ends: {sorted(answered - finished)[:3]}")
    found.require(begun <= accepted, f"missing beginnings: {sorted(begun - accepted)[:3]}")
    found.require(not twice, f"{twice} ids are there twice")
    for key, count in (("kills", 1), ("answered", len(answered)), ("cut_off", len(begun - answered))):
        found.figures[key] = found.figures.get(key, 0) + count
    server.start()
    await asyncio.to_thread(server.until_ready, 240)


def read_rows(database: Path) -> tuple[set[str], set[str], int]:
    """Ids that were accepted, that are finished, and how many are there twice; of a copy, as a crash left it."""
    copy = database.with_name("copy.sqlite")
    for end in ("", "-wal"):
        file = database.with_name(database.name + end)
        if file.exists():
            shutil.copy(file, copy.with_name(copy.name + end))
    with sqlite3.connect(copy) as connection:
        rows = connection.execute("SELECT id, finished_at, response FROM inferences").fetchall()
    connection.close()
    for end in ("", "-wal", "-shm"):
        copy.with_name(copy.name + end).unlink(missing_ok=True)
    ids = [row[0] for row in rows]
    return set(ids), {row[0] for row in rows if row[1] and row[2]}, len(ids) - len(set(ids))

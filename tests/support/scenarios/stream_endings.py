"""Streams that end otherwise than by themselves: the server stops, the client leaves, time is over (faults 3, 4 and 5)."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path
from typing import Any

from serving_process import Server

from scenarios.fault_result import FaultResult, quantile
from scenarios.load_patterns import CHAT, chat
from scenarios.process_inspection import alive, faults_in, numbers, until, worker
from scenarios.raw_http_client import Line, Reply, ask, request

FREE = 0.2
"""Seconds from a disconnect to the free place."""


async def scraped(server: Server) -> dict[str, float]:
    return numbers((await ask(server.port, "/metrics", server.keys["scrape"])).body)


def new_result() -> FaultResult:
    return FaultResult(
        3,
        "SIGTERM with eight open streams",
        "no stream cut up to the grace limit; readiness false first; new connections refused; exit 0",
    )


async def stopping(found: FaultResult, server: Server, *, notice: float) -> None:
    """One SIGTERM to the supervisor of a server with ``drain.notice_seconds`` = ``notice``; the server is gone afterwards."""
    log = server.log.stat().st_size
    lines = [await Line.open(server.port, request(CHAT, server.keys["chat"], chat(120))) for _ in range(8)]
    for line in lines:
        await line.head()
        await line.part()
    rest = [asyncio.create_task(line.rest()) for line in lines]
    start = time.monotonic()
    server.process.send_signal(signal.SIGTERM)

    async def unready() -> bool:
        said = await ask(server.port, "/readyz", None)
        return said.status == 503 and json.loads(said.body).get("reason") == "the server is stopping"

    found.require(await until(unready, 5) <= 5, "readiness did not turn false")
    late = await ask(server.port, CHAT, server.keys["chat"], chat(2))
    full = late.error.get("code") == "queue_full"  # the eight streams still run
    found.require(late.status == 200 or full, f"during the notice a request got {late.status}")
    await asyncio.sleep(max(0.0, notice + 1.5 - (time.monotonic() - start)))
    while alive(server.process.pid) and not all(task.done() for task in rest):
        refused = time.monotonic()
        later = await ask(server.port, "/healthz", None, seconds=5)
        found.require(later.status == 0 and time.monotonic() - refused < 1, "a new connection was taken while stopping")
        await asyncio.sleep(0.2)
    replies = await asyncio.gather(*rest)
    for reply in replies:
        found.require(reply.streamed, f"a stream was cut after {len(reply.events)} events")
    code = await asyncio.to_thread(server.process.wait, 60)
    found.require(code == 0, f"exit {code}")
    for key, more in (("runs", 1), ("streams", len(replies)), ("cut", sum(not reply.streamed for reply in replies))):
        found.figures[key] = found.figures.get(key, 0) + more
    for line in faults_in(server, log):
        found.require(False, line)


async def beyond_grace(found: FaultResult, server: Server, *, grace: float) -> None:
    """SIGTERM with a stream that would last longer than the grace limit: the server ends all the same."""
    line = await Line.open(server.port, request(CHAT, server.keys["chat"], chat(440, n=4)))
    await line.head()
    start = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    rest = asyncio.create_task(line.rest())
    await asyncio.to_thread(server.process.wait, 60)
    found.require_at_most("end_beyond_grace_s", time.monotonic() - start, grace + 6)
    await rest


async def disconnects(server: Server, times: int) -> FaultResult:
    """Leave in the middle of a stream, of a whole answer, and of the queue."""
    found = FaultResult(
        4, f"{times} clients leave", "generation stops within one token or 200 ms, and the place is free"
    )
    waits, over = list[float](), list[float]()
    log = server.log.stat().st_size
    for turn in range(times):
        stream = turn % 2 == 0
        line = await Line.open(server.port, request(CHAT, server.keys["chat"], chat(440, stream=stream)))
        if stream:
            await line.head()
            while len(line.reply.events) < 5 and await line.part():
                pass
        else:
            await until(lambda: _at_least(server, "tunectl_requests_running", 1), 10)
            await asyncio.sleep(0.05)
        found.require(line.reply.status == (200 if stream else 0), f"a stream got {line.reply.status}")
        line.leave()
        left = (await scraped(server))["tunectl_generation_tokens_total"]
        waits.append(await until(lambda: _gone(server), 10))
        after = (await scraped(server))["tunectl_generation_tokens_total"]
        over.append(after - left)
        await asyncio.sleep(0.05)
        found.require((await scraped(server))["tunectl_generation_tokens_total"] == after, "generation went on")
    found.figures |= {"free_p50_s": round(quantile(waits, 0.5), 4), "tokens_after_p95": quantile(over, 0.95)}
    found.require_at_most("free_worst_s", max(waits), FREE)
    for line_ in faults_in(server, log):
        found.require(False, line_)
    return found


async def leaving_the_queue(server: Server, found: FaultResult, *, running: int) -> None:
    """Whoever waits may leave as well."""
    bodies = [request(CHAT, server.keys["chat"], chat(200)) for _ in range(running + 2)]
    lines = [await Line.open(server.port, body) for body in bodies]
    found.require(await until(lambda: _at_least(server, "tunectl_requests_waiting", 2), 20) <= 20, "nobody waits")
    for line in lines[running:]:
        line.leave()
    found.require_at_most("queue_free_s", await until(lambda: _is(server, "tunectl_requests_waiting", 0), 10), FREE)
    for line in lines[:running]:
        line.leave()
    found.require(await until(lambda: _gone(server), 10) <= 10, "places stay taken")


async def _at_least(server: Server, name: str, value: float) -> bool:
    return (await scraped(server))[name] >= value


async def _is(server: Server, name: str, value: float) -> bool:
    return (await scraped(server))[name] == value


async def _gone(server: Server) -> bool:
    return await _is(server, "tunectl_requests_running", 0)


async def hang(server: Server, inject: Path, *, running: int, waiting: int, seconds: float) -> FaultResult:
    """The engine hangs in a step while requests come and time out; then it goes on.

    ``inject`` is the folder that the server's TUNECTL_INJECT names, ``seconds`` its ``limits.seconds``.
    """
    found = FaultResult(
        5, "an engine that hangs", "running never exceeds its bound; every request ends by its time limit"
    )
    most, log = [0.0], server.log.stat().st_size
    (inject / "hang").touch()

    async def watch() -> None:
        while True:
            most[0] = max(most[0], (await scraped(server))["tunectl_requests_running"])
            await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch())
    asked = [ask(server.port, CHAT, server.keys["chat"], chat(8)) for _ in range(3 * (running + waiting))]
    first = await asyncio.gather(*asked)
    again = await asyncio.gather(*(ask(server.port, CHAT, server.keys["chat"], chat(8)) for _ in range(running)))
    for reply in [*first, *again]:
        found.require(reply.status in (429, 504), f"a request of a server that hangs got {reply.status}")
    late = [reply.done for reply in first if reply.status == 504]
    found.require(len(late) == running + waiting, f"{len(late)} were let in, {running + waiting} places")
    (inject / "hang").unlink()
    found.require(await until(lambda: _gone(server), 30) <= 30, "places stay taken after the hang")
    fine = await ask(server.port, CHAT, server.keys["chat"], chat(4))
    found.require(fine.streamed, f"after the hang a request got {fine.status}")
    watching.cancel()
    found.figures |= {"running_most": most[0], "engine_held_most": int((inject / "most").read_text())}
    found.require(most[0] <= running, f"{most[0]:g} were running")
    found.require(found.figures["engine_held_most"] <= max(running, 4), "the engine held more than may run")
    found.require_at_most("time_over_limit_s", max(late, default=0.0) - seconds, 0.5)
    for line in faults_in(server, log):
        found.require(False, line)
    return found


async def unread(server: Server, found: FaultResult, *, running: int, seconds: float) -> None:
    """Clients that take nothing in: their places come back a little after the time limit."""
    body: dict[str, Any] = chat(440, logprobs=True)
    lines = [
        await Line.open(server.port, request(CHAT, server.keys["chat"], body | {"seed": turn}), receive=2048)
        for turn in range(running)
    ]
    found.require(await until(lambda: _at_least(server, "tunectl_requests_running", running), 20) <= 20, "nobody runs")
    found.require(
        await until(lambda: _gone(server), seconds + 15) <= seconds + 15, "clients that do not read keep places"
    )
    fine: Reply = await ask(server.port, CHAT, server.keys["chat"], chat(4))
    found.require(fine.streamed, f"after clients that do not read a request got {fine.status}")
    for line in lines:
        line.leave()
    found.require(alive(worker(server)), "the server died")

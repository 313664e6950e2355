"""Honest requests at half of the server's capacity, beside hostile clients: no honest request is lost.

Lost is an honest request without an answer, a cut stream, one that is still refused after its retries, and a row that is missing in
the inference log. A refusal that a retry turns into an answer is not lost.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from serving_process import Server

from scenarios.fault_result import FaultResult, quantile
from scenarios.load_patterns import CHAT, chat, closed
from scenarios.malformed_requests import RAW, bodies
from scenarios.process_inspection import faults_in, memory, worker
from scenarios.raw_http_client import Line, Reply, ask, request, send
from scenarios.server_kills import read_rows
from tunectl.core import progress

TOKENS = 16
CLIENTS = 8
"""That measure the capacity: as many as the server answers at once."""
MAX_MEMORY_GROWTH, MAX_HEALTH_SECONDS = 0.03, 1.0
WARM = 1 / 6
"""Share of the time after which memory is first read: 5 of 30 minutes."""
RETRIES = 5


class HonestClients:
    """Honest requests at random times (a Poisson process), each retried when it is refused."""

    def __init__(self, server: Server, rate: float) -> None:
        self.server, self.rate = server, rate
        self.firsts: list[float] = []
        """Seconds to the first token, from the last try."""
        self.ids: set[str] = set()
        self.lost: list[str] = []
        self.sent = self.retried = 0

    async def run(self, seconds: float, bar: progress.Bar) -> None:
        """Send for so long, and wait for what is under way."""
        chance, start = random.Random(5), time.monotonic()
        moment, shown = start, 0.0
        async with asyncio.TaskGroup() as group:
            while moment < start + seconds:
                group.create_task(self._ask())
                moment += chance.expovariate(self.rate)
                await asyncio.sleep(max(0.0, moment - time.monotonic()))
                now = min(seconds, time.monotonic() - start)
                bar.advance(now - shown)
                shown = now

    async def _ask(self) -> None:
        self.sent += 1
        body, reply = chat(TOKENS), Reply()
        for turn in range(RETRIES):
            reply = await ask(self.server.port, CHAT, self.server.keys["chat"], body)
            if reply.status not in (429, 503):
                break
            self.retried += 1
            await asyncio.sleep(min(5.0, float(reply.headers.get("retry-after", "1")) * (1 + 0.1 * turn)))
        if reply.streamed:
            self.firsts.append(reply.first)
            self.ids.add(json.loads(reply.events[0])["id"])
        else:
            self.lost.append(f"status {reply.status}: {reply.body[:80]!r}")


class HostileClients:
    """Hostile clients, with a limited key and without one."""

    def __init__(self, server: Server, slow: int) -> None:
        self.server, self.slow = server, slow
        self.key = server.key("stranger", ["chat"], 600)
        """Its limit is 10 requests a second."""
        self.answers: dict[int, int] = {}
        self.bad: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin; ``stop`` ends it."""
        ways = (self._send_garbage, self._send_bodies, self._guess_keys, self._leave_streams, self._send_patterns)
        self._tasks = [asyncio.create_task(self._repeat(way)) for way in ways]
        self._tasks += [asyncio.create_task(self._crawl(number)) for number in range(self.slow)]

    async def stop(self) -> None:
        """End all of them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _repeat(self, way: Callable[[], Awaitable[None]]) -> None:
        while True:
            await way()
            await asyncio.sleep(0.1)

    def _note(self, what: str, reply: Reply) -> None:
        self.answers[reply.status] = self.answers.get(reply.status, 0) + 1
        if reply.status >= 500 and reply.status != 503:
            self.bad.append(f"{what}: {reply.status} {reply.body[:80]!r}")

    async def _send_garbage(self) -> None:
        for name, data in RAW.items():
            self._note(name, await send(self.server.port, data))
            await asyncio.sleep(0.05)

    async def _send_bodies(self) -> None:
        for name, data, kind in bodies():
            for key in (self.key, None):
                reply = await ask(self.server.port, CHAT, key, data, headers=f"Content-Type: {kind}")
                self._note(name, reply)
                await asyncio.sleep(0.05)

    async def _guess_keys(self) -> None:
        for _ in range(20):
            self._note("a wrong key", await ask(self.server.port, CHAT, "tk-wrong", chat(TOKENS)))

    async def _leave_streams(self) -> None:
        with suppress(OSError, ValueError, asyncio.IncompleteReadError):
            line = await Line.open(self.server.port, request(CHAT, self.key, chat(200)))
            await line.head()
            if line.reply.status == 200:
                await line.part()
            self._note("a stream that is left", line.reply)
            line.leave()

    async def _send_patterns(self) -> None:
        """What made regular expressions slow: escaped quotes before parsing."""
        deep = b"[]" * 33 + b'"' + b'\\"' * 200_000
        self._note("escaped quotes", await ask(self.server.port, CHAT, self.key, deep))

    async def _crawl(self, number: int) -> None:
        """Send a head byte for byte, and connect anew when the server closes."""
        data = request(CHAT, self.key, b" " * 500)
        await asyncio.sleep(number * 0.005)
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
                try:
                    for place in range(len(data)):
                        writer.write(data[place : place + 1])
                        await writer.drain()
                        await asyncio.sleep(2.0)
                finally:
                    writer.transport.abort()
            await asyncio.sleep(1.0)


async def soak(server: Server, *, seconds: float, quiet: float, slow: int = 1000) -> FaultResult:
    """Measure the capacity and a quiet time of ``quiet`` seconds, then ``seconds`` beside ``slow`` slow connections and the rest."""
    found = FaultResult(
        0,
        f"{seconds:g} s of honest requests beside hostile clients",
        "nothing lost, every row in the log, /healthz under 1 s, memory at most 1.03 times that after a sixth of the time",
    )
    pid, log = worker(server), server.log.stat().st_size
    await closed(server, CLIENTS, min(quiet, 3.0), TOKENS)  # warm
    start = time.monotonic()
    capacity = sum(one.streamed for one in await closed(server, CLIENTS, quiet, TOKENS)) / (time.monotonic() - start)
    calm, honest, hostile = (
        HonestClients(server, capacity / 2),
        HonestClients(server, capacity / 2),
        HostileClients(server, slow),
    )
    with progress.bar("soak", quiet + seconds) as bar:
        await calm.run(quiet, bar)
        before, began = time.process_time(), time.monotonic()
        hostile.start()
        watch = ServerWatch(server, pid, seconds)
        watching = asyncio.create_task(watch.run())
        await honest.run(seconds, bar)
        await hostile.stop()
        watching.cancel()
    cpu = (time.process_time() - before) / (time.monotonic() - began)
    await asyncio.sleep(1.0)  # the log writes in groups
    _judge(found, server, calm, honest, hostile)
    found.figures |= {"capacity_per_s": round(capacity, 2), "generator_cpu_share_of_a_core": round(cpu, 3)}
    found.require_at_most("health_worst_s", max(watch.healths, default=99.0), MAX_HEALTH_SECONDS)
    found.require_at_most("memory_growth", watch.growth, MAX_MEMORY_GROWTH)
    for line in faults_in(server, log):
        found.require(False, line)
    return found


class ServerWatch:
    """Asks for health twice a second, and reads memory once."""

    def __init__(self, server: Server, pid: int, seconds: float) -> None:
        self.server, self.pid, self.seconds = server, pid, seconds
        self.healths: list[float] = []
        self.sizes: list[tuple[float, float]] = []
        """Share of the time, and bytes."""

    async def run(self) -> None:
        """Until canceled."""
        start = time.monotonic()
        while True:
            since = time.monotonic()
            reply = await ask(self.server.port, "/healthz", None, seconds=30)
            self.healths.append(time.monotonic() - since if reply.status == 200 else 30.0)
            self.sizes.append(((since - start) / self.seconds, memory(self.pid)))
            await asyncio.sleep(0.5)

    @property
    def growth(self) -> float:
        """Of the last tenth of the time over the tenth that follows the warm part, as a share."""
        early = [size for at, size in self.sizes if WARM <= at < WARM + 0.1]
        late = [size for at, size in self.sizes if 0.9 <= at <= 1.0]
        return sum(late) / len(late) / (sum(early) / len(early)) - 1 if early and late else 0.0


def _judge(
    found: FaultResult, server: Server, calm: HonestClients, honest: HonestClients, hostile: HostileClients
) -> None:
    _, finished, twice = read_rows(server.folder / ".tunectl/inference_log/inference_log.sqlite")
    missing = (calm.ids | honest.ids) - finished
    found.figures |= {"honest": honest.sent, "lost": len(calm.lost) + len(honest.lost) + len(missing)}
    found.figures |= {"retried": honest.retried, "hostile": sum(hostile.answers.values())}
    for share in (50, 95):
        quiet, loaded = (quantile(one.firsts, share / 100) for one in (calm, honest))
        found.figures[f"first_token_p{share}_s"] = round(loaded, 4)
        found.figures[f"first_token_p{share}_quiet_s"] = round(quiet, 4)
    found.require(bool(honest.ids) and bool(hostile.answers), "nobody was answered")
    found.require(not honest.lost and not calm.lost, f"{len(honest.lost)} lost: {(honest.lost or calm.lost)[:3]}")
    found.require(not missing, f"{len(missing)} rows are missing in the log: {sorted(missing)[:3]}")
    found.require(not twice, f"{twice} rows are there twice")
    found.require(not hostile.bad, f"a hostile client was answered with {hostile.bad[:3]}")

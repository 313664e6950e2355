"""The load generator of bench_serve: a process of its own that keeps a number of requests open and records when tokens arrive.

    python benchmarks/serve_client.py < plan.json

It speaks HTTP itself, on one event loop and without a client library, because it shares the cores with the server that it
measures. The bare engine is driven by this very code: same events, same decoding, over one connection that carries all
streams. The last line is JSON: tokens/s over the window, times to the first token, and what the client itself cost.

A plan with ``arrivals`` (seconds, one a body) is an open loop: each request is sent at its time, however many are under way,
and its first token counts from that time, so that a server that falls behind is not asked less.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

GRACE = 2.0
"""Seconds after the window in which streams may still end before they are cut."""


@dataclass
class Stream:
    """One request."""

    number: int
    sent: float
    events: list[float] = field(default_factory=list)
    """When each piece of text came; monotonic seconds."""
    used: int | None = None
    """Tokens as the server counts them."""
    prompt: int | None = None
    """Tokens of the prompt, as the server counts them, else as the plan says."""
    failed: str | None = None
    done: bool = False

    def handle_event(self, data: bytes, now: float) -> None:
        """Handle one event."""
        if data == b"[DONE]":
            return
        event = msgspec.json.decode(data)
        if event.get("error"):
            self.failed = str(event["error"])[:300]
        usage = event.get("usage")
        if usage:
            self.used = usage["completion_tokens"]
            self.prompt = usage.get("prompt_tokens", self.prompt)
        for choice in event.get("choices") or ():
            if (choice.get("delta") or {}).get("content"):
                self.events.append(now)


class Http(asyncio.Protocol):
    """One keep-alive connection: sends a request, reads its server-sent events.

    Some servers close after every stream and do not say so: then the request that met the closed door goes over a new one.
    """

    def __init__(self, load: Load, again: tuple[Stream, bytes] | None = None) -> None:
        self.load, self.again = load, again
        self.stream, self.body = again or (Stream(0, 0.0), b"")
        self.answered = False
        """Whether this connection has brought anything."""
        self.raw = b""
        self.remaining = -1
        """Bytes of the body's chunk that have not come; -1: in a header."""
        self.text = b""
        self.head = True

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport
        self.next(self.again)

    def next(self, again: tuple[Stream, bytes] | None = None) -> None:
        """Send the next request, unless it is time to stop."""
        entry = again or self.load.next()
        if entry is None:
            self.transport.close()
            return
        self.stream, self.body = entry
        self.raw, self.text, self.remaining, self.head = b"", b"", -1, True
        self.transport.write(self.load.prefix % len(self.body) + self.body)

    def data_received(self, data: bytes) -> None:
        """Parse the chunks, and the events in them."""
        now = time.monotonic()
        self.answered = True
        self.raw += data
        if self.head and not self._head():
            return
        while self._chunk():
            pass
        *events, self.text = self.text.split(b"\n\n")
        for event in events:
            for line in event.split(b"\n"):
                if line.startswith(b"data: "):
                    self.stream.handle_event(line[6:].strip(), now)
        if self.remaining == 0:
            self.stream.done = True
            self.next()

    def _head(self) -> bool:
        head, separator, rest = self.raw.partition(b"\r\n\r\n")
        if not separator:
            return False
        if b" 200 " not in head.split(b"\r\n", 1)[0] or b"chunked" not in head.lower():
            self.stream.failed = (head.split(b"\r\n", 1)[0] + b" " + rest[:300]).decode(errors="replace")
            self.stream.done = True
            self.transport.close()
            return False
        self.raw, self.head = rest, False
        return True

    def _chunk(self) -> bool:
        """Move what came of one chunk to the text; False when more must come, or when the body is over."""
        if self.remaining < 0:
            size, separator, rest = self.raw.partition(b"\r\n")
            if not separator:
                return False
            if not int(size, 16):
                self.remaining = 0 if rest == b"\r\n" else -1
                return False
            self.remaining, self.raw = int(size, 16) + 2, rest
        if len(self.raw) < self.remaining:
            return False
        self.text += self.raw[: self.remaining - 2]
        self.raw, self.remaining = self.raw[self.remaining :], -1
        return bool(self.raw)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count a lost client, unless the server closed between two requests."""
        fresh = self.head and not self.raw and not self.stream.done
        if fresh and self.answered and not self.load.over:
            self.load.reopen(self.stream, self.body)
            return
        if not self.stream.done and not self.load.over:
            self.stream.failed = self.stream.failed or "the server closed the connection"
            self.stream.done = True
        self.load.count_closed()


class Pipe(asyncio.Protocol):
    """All streams over one connection, one line an event, for the bare engine."""

    def __init__(self, load: Load) -> None:
        self.load, self.text = load, b""
        self.streams: dict[int, Stream] = {}

    def connection_made(self, transport: Any) -> None:
        """Begin all streams."""
        self.transport = transport
        for _ in range(self.load.clients):
            self.next()

    def next(self) -> None:
        """Send the next request, unless it is time to stop."""
        entry = self.load.next()
        if entry is None:
            self.load.count_closed()
            return
        self.send(*entry)

    def send(self, stream: Stream, body: bytes) -> None:
        """Send one request."""
        self.streams[stream.number] = stream
        self.transport.write(b"%d " % stream.number + body + b"\n")

    def data_received(self, data: bytes) -> None:
        """Hand each line to its stream."""
        now = time.monotonic()
        *lines, self.text = (self.text + data).split(b"\n")
        for line in lines:
            number, _, event = line.partition(b" data: ")
            stream = self.streams[int(number)]
            if event == b"[DONE]":
                stream.done = True
                del self.streams[stream.number]
                self.next()
            else:
                stream.handle_event(event, now)

    def connection_lost(self, exc: Exception | None) -> None:
        """Record that the engine has ended."""
        for stream in self.streams.values():
            if not self.load.over:
                stream.failed = "the engine closed the connection"


class Load:
    """A closed loop of requests."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan, self.clients = plan, plan["clients"]
        head = [f"POST {plan.get('path', '/')} HTTP/1.1", f"Host: {plan['host']}", "Content-Type: application/json"]
        if plan.get("key"):
            head.append(f"Authorization: Bearer {plan['key']}")
        self.prefix = "\r\n".join([*head, "Content-Length: %d", "", ""]).encode()
        bodies = [msgspec.json.encode(body) for body in plan["bodies"]]
        self.bodies: Iterator[tuple[bytes, int | None]] = iter(
            list(zip(bodies, plan.get("prompt_tokens") or [None] * len(bodies), strict=True))
        )
        self.streams: list[Stream] = []
        self.over = False
        self.open = self.clients
        self.reopening: set[asyncio.Task[Any]] = set()
        self.finished = asyncio.Event()

    def next(self) -> tuple[Stream, bytes] | None:
        """The next request; None when the window is over or nothing is left."""
        entry = None if self.over else next(self.bodies, None)
        if entry is None:
            return None
        self.streams.append(stream := Stream(len(self.streams), time.monotonic(), prompt=entry[1]))
        return stream, entry[0]

    def reopen(self, stream: Stream, body: bytes) -> None:
        """Send a request over a new connection."""
        loop, plan = asyncio.get_running_loop(), self.plan
        task = loop.create_task(loop.create_connection(lambda: Http(self, (stream, body)), plan["host"], plan["port"]))
        self.reopening.add(task)
        task.add_done_callback(self.note_reopened)

    def note_reopened(self, task: asyncio.Task[Any]) -> None:
        """A connection is open, or the server accepts no more."""
        self.reopening.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.count_closed()

    def count_closed(self) -> None:
        """A client has stopped."""
        self.open -= 1
        if self.open <= 0:
            self.finished.set()

    async def run(self) -> dict[str, Any]:
        """Open all connections, let them warm up, measure."""
        loop, plan = asyncio.get_running_loop(), self.plan
        pipe = plan["transport"] == "pipe"
        connections = [
            await loop.create_connection(lambda: (Pipe if pipe else Http)(self), plan["host"], plan["port"])
            for _ in range(1 if pipe else self.clients)
        ]
        await self._rest(plan["warm"])
        start, cpu = time.monotonic(), time.process_time()
        await self._rest(plan["seconds"])
        while self._count_since(start) < plan.get("requests", 0) and not self.finished.is_set():
            if time.monotonic() - start > plan["longest"]:
                break
            await self._rest(0.1)
        end, cpu = time.monotonic(), time.process_time() - cpu
        self.over = True
        await self._rest(plan.get("grace", GRACE))
        for transport, _ in connections:
            transport.abort()
        return result(self.streams, start, end, cpu)

    def _count_since(self, start: float) -> int:
        return sum(bool(stream.events) and stream.events[0] >= start for stream in self.streams)

    async def _rest(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.finished.wait(), seconds)
        except TimeoutError:
            return


class OpenLoad(Load):
    """An open loop: requests at given times."""

    def __init__(self, plan: dict[str, Any]) -> None:
        super().__init__({**plan, "clients": 0})
        self.arrivals: list[float] = plan["arrivals"]
        self.open = len(self.arrivals)
        self.connecting: set[asyncio.Task[Any]] = set()

    def next(self) -> tuple[Stream, bytes] | None:
        """No request follows another: each has its time."""
        return None

    async def run(self) -> dict[str, Any]:
        """Send every request at its time; ``grace`` seconds after the last one streams are cut."""
        loop, plan = asyncio.get_running_loop(), self.plan
        address = plan["host"], plan["port"]
        pipe = (await loop.create_connection(lambda: Pipe(self), *address))[1] if plan["transport"] == "pipe" else None
        start, cpu = time.monotonic(), time.process_time()
        for offset, (body, size) in zip(self.arrivals, self.bodies, strict=True):
            await asyncio.sleep(max(0.0, start + offset - time.monotonic()))
            self.streams.append(stream := Stream(len(self.streams), start + offset, prompt=size))
            if pipe is not None:
                pipe.send(stream, body)
                continue
            connection = loop.create_connection(lambda s=stream, b=body: Http(self, (s, b)), *address)
            self.connecting.add(task := loop.create_task(connection))
            task.add_done_callback(self.note_connected)
        await self._rest(plan["grace"])
        self.over = True
        return open_result(self.streams, self.arrivals[-1], plan["limit"], time.process_time() - cpu)

    def note_connected(self, task: asyncio.Task[Any]) -> None:
        """A connection is open, or the server accepts none."""
        self.connecting.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.count_closed()


def open_result(streams: list[Stream], seconds: float, limit: float, cpu: float) -> dict[str, Any]:
    """Return the result of an open loop. An answer is good if it is complete, its first token within ``limit`` seconds of its time."""
    firsts = [stream.events[0] - stream.sent for stream in streams if stream.events]
    whole = [stream for stream in streams if stream.done and not stream.failed and stream.events]
    good = [stream for stream in whole if stream.events[0] - stream.sent <= limit]
    lasts = [stream.events[-1] for stream in streams if stream.events]
    seconds = max(seconds, 1e-9)
    return {
        "until_last_token_seconds": max(lasts) - min(stream.sent for stream in streams) if lasts else None,
        "sent": len(streams),
        "finished": len(whole),
        "good": len(good),
        "goodput_per_second": round(len(good) / seconds, 3),
        "good_tokens_per_second": round(sum(stream.used or len(stream.events) for stream in good) / seconds, 2),
        "first": quantiles(firsts),
        "seconds": round(seconds, 2),
        "client_cpu_share": round(cpu / seconds, 3),
        "failed": sorted({stream.failed for stream in streams if stream.failed})[:3],
    }


def result(streams: list[Stream], start: float, end: float, cpu: float) -> dict[str, Any]:
    """Return the result of the window. A server may put several tokens into one event, so an event weighs what its stream's do."""
    weights = [stream.used / len(stream.events) for stream in streams if stream.used and stream.events]
    usual = sum(weights) / len(weights) if weights else 1.0
    tokens = 0.0
    first, between, prompt_tokens = [], [], 0
    for stream in streams:
        weight = stream.used / len(stream.events) if stream.used and stream.events else usual
        tokens += weight * sum(start <= event < end for event in stream.events)
        if stream.events and start <= stream.events[0] < end:
            first.append(stream.events[0] - stream.sent)
            prompt_tokens += stream.prompt or 0
        between += [b - a for a, b in zip(stream.events, stream.events[1:], strict=False) if start <= b < end]
    waiting = sum(1 for stream in streams if not stream.events and not stream.failed)
    return {
        "tokens_per_second": round(tokens / (end - start), 2),
        "prompt_tokens_per_second": round(prompt_tokens / (end - start), 2),
        "tokens_per_event": round(usual, 2),
        "seconds": round(end - start, 2),
        "requests": len(first),
        "finished": sum(stream.done and not stream.failed for stream in streams),
        "without_a_word": waiting,
        "first": quantiles(first),
        "first_ms": [round(1000 * value, 1) for value in first],
        "between": quantiles(between),
        "client_cpu_share": round(cpu / (end - start), 3),
        "failed": sorted({stream.failed for stream in streams if stream.failed})[:3],
    }


def quantiles(values: list[float]) -> dict[str, float | None]:
    """Median and 95th percentile, in milliseconds; None where there is none."""
    ordered = sorted(values)
    return {
        name: round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) if ordered else None
        for name, share in (("p50", 0.5), ("p95", 0.95))
    }


if __name__ == "__main__":
    carried = json.load(sys.stdin)
    print(json.dumps(asyncio.run((OpenLoad if "arrivals" in carried else Load)(carried).run())))

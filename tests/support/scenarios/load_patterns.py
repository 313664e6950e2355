"""Many clients at once: so many that each has its turn, or a stream of arrivals that does not care how the server feels."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from typing import Any

from serving_process import Server

from scenarios.raw_http_client import Reply, ask

CHAT = "/v1/chat/completions"
_COUNT = itertools.count()


def chat(max_tokens: int, *, stream: bool = True, **more: Any) -> dict[str, Any]:
    """A request that no other equals, for exactly ``max_tokens`` tokens."""
    turn = next(_COUNT)
    messages = [{"role": "user", "content": f"Tell me more, {turn}"}]
    body = {"model": "shop", "messages": messages, "max_tokens": max_tokens, "stream": stream, "temperature": 1.0}
    return {**body, "ignore_eos": True, "seed": turn, "user": f"user-{turn % 50}", **more}


async def closed(server: Server, clients: int, seconds: float, max_tokens: int) -> list[Reply]:
    """``clients`` that ask again as soon as they were answered."""
    until, found = time.monotonic() + seconds, list[Reply]()

    async def client() -> None:
        while time.monotonic() < until:
            found.append(await ask(server.port, CHAT, server.keys["chat"], chat(max_tokens)))

    await asyncio.gather(*(client() for _ in range(clients)))
    return found


async def arriving(server: Server, rate: float, seconds: float, max_tokens: int) -> list[Reply]:
    """``rate`` new clients a second, at random moments (a Poisson process), whatever becomes of those before."""
    chance, start, found = random.Random(5), time.monotonic(), list[Reply]()

    async def client() -> None:
        found.append(await ask(server.port, CHAT, server.keys["chat"], chat(max_tokens)))

    async with asyncio.TaskGroup() as group:
        moment = start
        while moment < start + seconds:
            moment += chance.expovariate(rate)
            await asyncio.sleep(max(0.0, moment - time.monotonic()))
            group.create_task(client())
    return found

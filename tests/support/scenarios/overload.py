"""More than the server can take: what it refuses, how fast, and what those hear whom it answers (faults 1 and 2)."""

from __future__ import annotations

import asyncio
import time

import openai
from serving_process import Server

from scenarios.fault_result import FaultResult, quantile
from scenarios.load_patterns import arriving, chat, closed
from scenarios.process_inspection import faults_in, memory, worker
from scenarios.raw_http_client import Reply

REFUSAL, FIRST, MEMORY = 0.050, 1.5, 0.03
"""Seconds for a refusal; times the first token without overload; share of growth."""


async def overload(
    server: Server, *, running: int, seconds: float, quiet: float, times: float = 4.0, least: float = 0.0
) -> FaultResult:
    """``times`` as many arrivals a second as the server can answer, and not fewer than ``least``.

    The time to first token is held against that of a full running set with an empty queue, measured just before on the
    same server for ``quiet`` seconds; ``running`` is its bound, and it should have no waiting places, so that a wait of
    one's own in the queue is in neither figure.
    """
    found = FaultResult(
        1,
        f"{times:g}x overload for {seconds:g} s",
        "refusals 429/503 with Retry-After in OpenAI's shape within 50 ms; p95 time to first token <= 1.5x of a full running set; memory flat",
    )
    tokens, pid, log = 16, worker(server), server.log.stat().st_size
    await closed(server, running, min(quiet, 3.0), tokens)
    start = time.monotonic()
    before = await closed(server, running, quiet, tokens)
    capacity = sum(one.streamed for one in before) / (time.monotonic() - start)
    sizes: list[float] = []
    sampling = asyncio.create_task(_sample(pid, sizes))
    replies = await arriving(server, max(least, times * capacity), seconds, tokens)
    sampling.cancel()
    _judge(found, replies, [one for one in before if one.streamed])
    found.figures |= {"capacity_per_s": round(capacity, 2), "arrivals": len(replies)}
    found.require_at_most("memory_growth", _growth(sizes), MEMORY)
    for line in faults_in(server, log):
        found.require(False, line)
    return found


def _judge(found: FaultResult, replies: list[Reply], before: list[Reply]) -> None:
    answered = [one for one in replies if one.status == 200]
    refused = [one for one in replies if one.status in (429, 503)]
    found.figures |= {"answered": len(answered), "refused": len(refused)}
    found.require(bool(answered) and bool(refused), "nobody was answered, or nobody refused")
    for one in replies:
        found.require(one.status in (200, 429, 503), f"an answer of status {one.status}: {one.body[:100]!r}")
    for one in answered:
        found.require(one.streamed, "an accepted stream was cut")
    for one in refused:
        found.require(bool(one.error), f"a refusal is not in OpenAI's shape: {one.body[:100]!r}")
        found.require(one.headers.get("retry-after", "").isdigit(), "a refusal has no Retry-After")
    waits = [one.done for one in refused]
    found.figures |= {f"refusal_p{share}_s": round(quantile(waits, share / 100), 4) for share in (50, 99)}
    found.require_at_most("refusal_worst_s", max(waits, default=0.0), REFUSAL)
    full, under = (quantile([one.first for one in group], 0.95) for group in (before, answered))
    found.figures |= {"first_p95_full_set_s": round(full, 4), "first_p95_overload_s": round(under, 4)}
    found.require_at_most("first_token_ratio", under / full if full else 0.0, FIRST)


async def _sample(pid: int, sizes: list[float]) -> None:
    while True:
        sizes.append(memory(pid))
        await asyncio.sleep(0.25)


def _growth(sizes: list[float]) -> float:
    """Growth of the last quarter over the second one, as a share: the first one warms up."""
    quarter = len(sizes) // 4
    if not quarter:
        return 0.0
    early, late = sizes[quarter : 2 * quarter], sizes[-quarter:]
    return sum(late) / sum(early) - 1


async def stock_clients(server: Server, *, places: int, each: int) -> FaultResult:
    """Twice as many stock ``openai`` clients as there are places, each asking ``each`` times, with its own two retries."""
    found = FaultResult(
        2, f"stock openai client, {2 * places} on {places} places", ">= 99 % succeed with its two retries"
    )
    client = openai.AsyncOpenAI(base_url=f"{server.address}/v1", api_key=server.keys["chat"])
    outcomes: list[str] = []

    async def person() -> None:
        for _ in range(each):
            try:
                body = chat(16, stream=False)
                more = {"ignore_eos": body.pop("ignore_eos")}
                said = await client.chat.completions.create(**body, extra_body=more)
                outcomes.append("answered" if said.choices else "empty")
            except openai.APIStatusError as error:
                outcomes.append(f"{error.status_code} {error.code}")
            except openai.OpenAIError as error:
                outcomes.append(type(error).__name__)

    start = time.monotonic()
    await asyncio.gather(*(person() for _ in range(2 * places)))
    await client.close()
    good = outcomes.count("answered") / len(outcomes)
    found.figures |= {name: outcomes.count(name) for name in sorted(set(outcomes))}
    found.figures |= {"succeeded": round(good, 4), "per_s": round(len(outcomes) / (time.monotonic() - start), 2)}
    found.require(good >= 0.99, f"{good:.1%} succeeded")
    return found

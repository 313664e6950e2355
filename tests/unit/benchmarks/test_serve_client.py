"""The load generator of bench_serve: what it counts, whatever way the bytes come."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def client() -> ModuleType:
    import sys

    found = importlib.util.spec_from_file_location("serve_client", BENCHMARKS / "serve_client.py")
    module = importlib.util.module_from_spec(found)
    sys.modules["serve_client"] = module
    found.loader.exec_module(module)
    return module


def event(**said: object) -> bytes:
    return b"data: " + json.dumps(said).encode() + b"\n\n"


def word(text: str) -> bytes:
    return event(choices=[{"delta": {"content": text}}])


def chunked(parts: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n" % len(part) + part + b"\r\n" for part in [*parts, b""])


ANSWER = [event(choices=[{"delta": {"role": "assistant", "content": ""}}]), word("a"), word("b") + word("c"), word("d")]
USAGE = [event(choices=[], usage={"completion_tokens": 8}), b"data: [DONE]\n\n"]


async def served(client: ModuleType, parts: list[bytes], size: int, plan: dict, *, closes: bool = False) -> dict:
    """What the client saw of a server that writes ``size`` bytes at a time."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        whole = head + chunked(parts)
        while await reader.readuntil(b"\r\n\r\n"):
            await reader.readexactly(2)
            for start in range(0, len(whole), size):
                writer.write(whole[start : start + size])
                await asyncio.sleep(0)
            await writer.drain()
            if closes:
                writer.close()
                return

    async def heard(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(heard, "127.0.0.1", 0)
    async with server:
        given = {"transport": "http", "host": "127.0.0.1", "port": server.sockets[0].getsockname()[1], "warm": 0}
        return await client.Load({**given, "seconds": 5, "bodies": [{}] * 6, **plan}).run()


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_events_are_counted_and_weighed_by_what_the_server_says(client: ModuleType, size: int) -> None:
    found = asyncio.run(served(client, [*ANSWER, *USAGE], size, {"clients": 2}))
    assert (found["finished"], found["failed"]) == (6, [])
    assert found["tokens_per_event"] == 2.0  # eight tokens in four events


def test_a_server_that_closes_after_each_stream_is_asked_on(client: ModuleType) -> None:
    found = asyncio.run(served(client, [*ANSWER, *USAGE], 100, {"clients": 2}, closes=True))
    assert (found["finished"], found["failed"]) == (6, [])


def test_only_the_window_counts(client: ModuleType) -> None:
    whole = client.Stream(0, sent=9.0, events=[9.5, 10.5, 11.0], used=6, done=True)
    cut = client.Stream(1, sent=10.0, events=[10.2, 12.5])
    silent = client.Stream(2, sent=10.0)
    found = client.result([whole, cut, silent], start=10.0, end=12.0, cpu=0.1)
    assert found["tokens_per_second"] == 3.0  # three events of two tokens in two seconds
    assert (found["requests"], found["finished"], found["without_a_word"]) == (1, 1, 1)
    assert found["first"] == {"p50": 200.0, "p95": 200.0}
    assert found["between"] == {"p50": 1000.0, "p95": 1000.0}


def test_a_refusal_and_a_broken_stream_are_reported(client: ModuleType) -> None:
    found = asyncio.run(served(client, [event(error={"message": "the cache is full"}), *USAGE], 50, {"clients": 1}))
    assert "the cache is full" in found["failed"][0]


def test_prompt_tokens_are_counted_beside_new_ones(client: ModuleType) -> None:
    inside = client.Stream(0, sent=9.5, events=[10.5, 11.0], used=2, prompt=30, done=True)
    before = client.Stream(1, sent=9.0, events=[9.5, 10.1], used=2, prompt=500, done=True)
    found = client.result([inside, before], start=10.0, end=12.0, cpu=0.1)
    assert (found["tokens_per_second"], found["prompt_tokens_per_second"], found["first_ms"]) == (1.5, 15.0, [1000.0])
    usage = [event(choices=[], usage={"completion_tokens": 4, "prompt_tokens": 7}), b"data: [DONE]\n\n"]
    assert asyncio.run(served(client, [*ANSWER, *usage], 100, {"clients": 1}))["prompt_tokens_per_second"] > 0


def test_a_window_lasts_until_so_many_requests_were_answered(client: ModuleType) -> None:
    plan = {"clients": 1, "seconds": 0.0, "requests": 4, "longest": 5.0}
    found = asyncio.run(served(client, [*ANSWER, *USAGE], 100, plan))
    assert found["requests"] >= 4
    again = asyncio.run(served(client, [*ANSWER, *USAGE], 100, {**plan, "requests": 10**6, "bodies": [{}] * 3}))
    assert again["finished"] == 3  # nothing is left to ask


def test_an_open_loop_sends_at_its_times_and_counts_what_was_good(client: ModuleType) -> None:
    plan = {"clients": 0, "arrivals": [0.0, 0.05, 0.1], "bodies": [{}] * 3, "limit": 5.0, "grace": 5.0}

    async def run(limit: float) -> dict:
        client.Load, usual = client.OpenLoad, client.Load
        try:
            return await served(client, [*ANSWER, *USAGE], 100, {**plan, "limit": limit})
        finally:
            client.Load = usual

    found = asyncio.run(run(5.0))
    assert (found["sent"], found["finished"], found["good"], found["failed"]) == (3, 3, 3, [])
    assert found["goodput_per_second"] == 30.0
    assert found["good_tokens_per_second"] == 240.0
    assert asyncio.run(run(0.0))["good"] == 0


def test_in_an_open_loop_a_late_or_cut_answer_is_not_good(client: ModuleType) -> None:
    good = client.Stream(0, sent=0.0, events=[0.4, 0.5], used=4, done=True)
    late = client.Stream(1, sent=1.0, events=[2.5, 2.6], used=4, done=True)
    cut = client.Stream(2, sent=2.0, events=[2.1])
    refused = client.Stream(3, sent=3.0, failed="429", done=True)
    found = client.open_result([good, late, cut, refused], 4.0, 1.0, 0.1)
    assert (found["sent"], found["finished"], found["good"], found["failed"]) == (4, 2, 1, ["429"])
    assert (found["goodput_per_second"], found["good_tokens_per_second"]) == (0.25, 1.0)
    assert found["first"] == {"p50": 400.0, "p95": 1500.0}


def test_quantiles_of_nothing(client: ModuleType) -> None:
    assert client.quantiles([]) == {"p50": None, "p95": None}
    assert client.quantiles([0.001] * 19 + [1.0]) == {"p50": 1.0, "p95": 1000.0}

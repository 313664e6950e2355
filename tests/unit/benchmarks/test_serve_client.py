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


def test_a_refusal_and_a_broken_stream_are_told(client: ModuleType) -> None:
    found = asyncio.run(served(client, [event(error={"message": "the cache is full"}), *USAGE], 50, {"clients": 1}))
    assert "the cache is full" in found["failed"][0]


def test_quantiles_of_nothing(client: ModuleType) -> None:
    assert client.quantiles([]) == {"p50": None, "p95": None}
    assert client.quantiles([0.001] * 19 + [1.0]) == {"p50": 1.0, "p95": 1000.0}

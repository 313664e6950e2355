"""Work beside the loop: its result, its error, and nobody waits for what hangs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from tunectl.serving.background_threads import run_in_thread


def test_what_it_gives_and_what_it_raises() -> None:
    def fails() -> None:
        raise ZeroDivisionError("so")

    async def scenario() -> None:
        assert await run_in_thread(lambda: 3) == 3
        with pytest.raises(ZeroDivisionError, match="so"):
            await run_in_thread(fails)

    asyncio.run(scenario())


@pytest.mark.parametrize("fails", [True, False])
def test_what_comes_too_late_is_handed_over(fails: bool) -> None:
    go, came = threading.Event(), threading.Event()
    found: list[int] = []

    def slow() -> int:
        assert go.wait(30)
        came.set()
        return 1 // (not fails)

    async def scenario() -> None:
        task = asyncio.create_task(run_in_thread(slow, on_late=found.append))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert found == []
    go.set()
    assert came.wait(30)
    until = time.monotonic() + (0.2 if fails else 30)
    while found == [] and time.monotonic() < until:
        time.sleep(0.01)
    assert found == ([] if fails else [1])


def test_what_comes_at_the_moment_of_the_cancellation_is_handed_over() -> None:
    async def scenario() -> None:
        found: list[int] = []
        done = threading.Event()
        task = asyncio.create_task(run_in_thread(lambda: done.set() or 7, on_late=found.append))
        await asyncio.sleep(0)
        assert done.wait(30)
        time.sleep(0.05)  # the result is there, and the loop has not heard of it
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(30):
            while found != [7]:
                await asyncio.sleep(0.01)

    asyncio.run(scenario())


HANGS = """
import asyncio, time
from tunectl.serving.background_threads import run_in_thread

async def scenario():
    task = asyncio.create_task(run_in_thread(lambda: time.sleep(600)))
    await asyncio.sleep(0.1)
    task.cancel()

asyncio.run(scenario())
"""


def test_a_process_ends_though_something_hangs() -> None:
    assert subprocess.run([sys.executable, "-c", HANGS], timeout=60).returncode == 0

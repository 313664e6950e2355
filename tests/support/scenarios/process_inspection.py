"""What can be seen of a server from outside: its processes, its memory, its log, its rows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from serving_process import Server


def worker(server: Server) -> int:
    """The process that serves: the child of BentoML's supervisor."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for child in children(server.process.pid):
            with contextlib.suppress(OSError):
                if b"worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return child
        time.sleep(0.05)
    raise AssertionError("the server has no worker")


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            if int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(folder.name))
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def memory(pid: int) -> float:
    """Resident bytes of a process and of those that it started."""
    pages = 0
    for one in (pid, *children(pid)):
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{one}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def kill(pid: int) -> None:
    """As ``kill -9``."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def faults_in(server: Server, since: int = 0) -> list[str]:
    """Lines of the log that tell of an unforeseen failure."""
    text = server.log.read_bytes()[since:].decode(errors="replace")
    marks = ("Traceback", "Exception in ASGI", "was never retrieved", "ASGI callable returned", "Segmentation")
    return [line[:300] for line in text.splitlines() if any(mark in line for mark in marks)]


async def until(condition: Callable[[], Awaitable[bool]], seconds: float, every: float = 0.005) -> float:
    """Seconds until a condition holds; more than ``seconds`` where it never did."""
    start = time.monotonic()
    while not await condition():
        if time.monotonic() - start > seconds:
            return time.monotonic() - start
        await asyncio.sleep(every)
    return time.monotonic() - start


def numbers(text: bytes) -> dict[str, float]:
    """Samples of an exposition by their name with labels."""
    lines = [line.rsplit(" ", 1) for line in text.decode().splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in lines}

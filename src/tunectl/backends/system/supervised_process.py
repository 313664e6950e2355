"""Run a command in a process group that ends with this process, even after kill -9.

    this process -> guard (``process_guard``, leader of the group) -> command -> whatever that starts

The guard reads a pipe whose other end only this process holds: when it dies, even by kill -9, the guard ends the whole group. When the guard dies,
the kernel ends the command, and we end the group. When all die at once, ``kill_marked`` finds what is left by a mark in its
environment. Linux only, standard library only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from tunectl.backends.system import exit_status
from tunectl.backends.system.process_guard import STOPPED

MARK: Final = "TUNECTL_RETRAIN_OF"
"""Environment variable of everything that a retrain starts: the retrain it belongs to."""
STOP_TIMEOUT_SECONDS: Final = 10.0
"""Seconds from SIGTERM to SIGKILL."""
LATE: Final = 124


class ProcessLimits(NamedTuple):
    """Limits of one command: wall time in seconds, niceness, CPUs and GPUs."""

    seconds: float
    nice: int = 0
    threads: int = 0
    """Processors; 0: all."""
    gpus: bool = True
    """Whether it may use GPUs."""


def run(
    command: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    mark: str,
    log: Path,
    stop: threading.Event,
    limits: ProcessLimits,
) -> int:
    """Run a command to its end, appending its output to the file ``log``; return its exit code.

    ``mark`` is put into the environment of all its processes, for ``kill_marked``; ``stop`` ends the command when it is set.
    Ended early it returns 130 (``stop`` was set) or 124 (timeout); no process of it is left in either case.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    guard = [
        sys.executable,
        "-m",
        "tunectl.backends.system.process_guard",
        str(limits.nice),
        str(limits.threads),
        *command,
    ]
    hidden: dict[str, str] = {} if limits.gpus else {"CUDA_VISIBLE_DEVICES": ""}
    with log.open("ab") as stream:
        process = subprocess.Popen(
            guard,
            cwd=cwd,
            env={**environment, **hidden, MARK: mark},
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    end, code = time.monotonic() + limits.seconds, None
    try:
        while code is None:
            code = process.poll()
            if code is None and (stop.wait(0.1) or time.monotonic() > end):
                _end(process)
                return STOPPED if stop.is_set() else LATE
    finally:
        _end(process)
        kill_marked(mark)
    return code if code >= 0 else 128 - code


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process group, with SIGTERM first, and wait for its leader."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
    end = time.monotonic() + STOP_TIMEOUT_SECONDS
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()


def kill_marked(mark: str) -> list[int]:
    """Kill every process that ``run`` started with ``mark``; return the process ids."""
    needle, result = f"{MARK}={mark}".encode(), []
    for process_folder in Path("/proc").glob("[0-9]*"):
        number = int(process_folder.name)
        try:
            is_marked = number != os.getpid() and needle in (process_folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if is_marked:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(number, signal.SIGKILL)
                result.append(number)
    end = time.monotonic() + STOP_TIMEOUT_SECONDS
    while any(exit_status.is_running(number) for number in result) and time.monotonic() < end:
        time.sleep(0.02)
    return result

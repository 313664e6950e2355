"""A build in the background: it continues when its starter ends, and is stopped as by Ctrl-C.

``.tunectl/build.json`` says who started it and why, ``build_stop.json`` who stopped it and why, ``build.log`` has its output. The lock of ``tunectl repro`` says whether
a build runs, and as which process, so that one that was started in a terminal is found and stopped, too.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from tunectl.artifacts import atomic_io, lock
from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import ArtifactError, InfrastructureError

MAX_LOG_BYTES = 8_000
"""Bytes from the end of the log that are shown."""


START_SECONDS = 30.0
"""Seconds for a started build to take its lock."""


T = TypeVar("T", "BuildRequest", "BuildStop")


class BuildRequest(msgspec.Struct, frozen=True):
    """Record of a build that the console started in the background: process id, author, reason and overrides (``.tunectl/build.json``)."""

    process: int
    """Process id of ``tunectl repro``."""
    author: str
    reason: str
    overrides: list[str] = []


class BuildStop(msgspec.Struct, frozen=True):
    """Record of a build that was stopped from the console: process id, author and reason (``.tunectl/build_stop.json``)."""

    process: int
    """Process id of ``tunectl repro``."""
    author: str
    reason: str


def start_build(layout: ProjectPaths, overrides: Sequence[str], *, author: str, reason: str) -> BuildRequest:
    """Start ``tunectl repro`` as a separate process and return its record; ``overrides`` are valid and are recorded in ``conf/overrides.yaml``.

    It returns when the build holds its lock, or has ended, so that of two concurrent starts only one succeeds.
    Raises  LockTimeoutError where a build runs; InfrastructureError where the log cannot be written.
    """
    starting = layout.build_log.with_suffix(".lock")
    with lock.file_lock(starting, "start of a build", busy="a build is started", timeout_seconds=START_SECONDS):
        with lock.file_lock(layout.repro_lock, "start of a build", busy="a build runs in this project"):
            pass
        return _spawn_build(layout, overrides, author=author, reason=reason)


def _spawn_build(layout: ProjectPaths, overrides: Sequence[str], *, author: str, reason: str) -> BuildRequest:
    process = start_detached(layout, ["repro", *overrides], layout.build_log)
    request = BuildRequest(process.pid, author, reason, list(overrides))
    atomic_io.write_json(layout.build_request, request)
    wait_for_lock(process, lambda: find_build(layout))
    return request


def start_detached(layout: ProjectPaths, arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start ``tunectl`` with ``arguments`` as a process that outlives this one, and write its output to ``log``.

    Raises  InfrastructureError where the log cannot be written.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        stream = log.open("wb")
    except OSError as error:
        raise atomic_io.write_error(log, error) from error
    with stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "tunectl", *arguments],
            cwd=layout.root,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C at the console does not reach it
        )
    threading.Thread(target=process.wait, daemon=True).start()  # no zombie is left while we live
    return process


def wait_for_lock(process: subprocess.Popen[bytes], find_holder: Callable[[], int | None]) -> None:
    """Return when ``find_holder`` returns the id of ``process``, or that has ended, or after ``START_SECONDS``."""
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and find_holder() != process.pid and time.monotonic() < end:
        time.sleep(0.05)


def find_build(layout: ProjectPaths) -> int | None:
    """Return the process id of the build that runs in this project; None where none runs."""
    return parse_process(lock.read_holder(layout.repro_lock))


def parse_process(holder: str) -> int | None:
    """Return the process id in the description of a lock's holder; None without one."""
    match = re.search(r"process (\d{1,9})", holder)
    return int(match[1]) if match else None


def read_request(layout: ProjectPaths, process: int) -> BuildRequest | None:
    """Return the record of the build with the process id ``process``; None where it was not started in the background."""
    return read_record(layout.build_request, BuildRequest, process)


def read_stop(layout: ProjectPaths, process: int) -> BuildStop | None:
    """Return the record of the stop of the build with the process id ``process``; None where it was not stopped from the console."""
    return read_record(layout.build_stop, BuildStop, process)


def read_record(path: Path, shape: type[T], process: int) -> T | None:
    """Return the record at ``path`` if it is about ``process``; None where it is absent, damaged, or about another one."""
    try:
        record: T = atomic_io.read_json(path, shape)
    except ArtifactError:
        return None
    return record if record.process == process else None


def stop_build(layout: ProjectPaths, stop: BuildStop) -> None:
    """Interrupt the build ``stop.process``: finished stages are kept, training goes on from its last checkpoint.

    Author and reason are written first, so that the build's own record has them.
    Raises  InfrastructureError where the process is not one of this machine's, or is another user's.
    """
    interrupt(stop.process, "repro", lambda: atomic_io.write_json(layout.build_stop, stop))  # it passes it on to DVC


def interrupt(process: int, verb: str, record: Callable[[], None] = lambda: None) -> None:
    """Send SIGINT to ``process`` if it runs ``tunectl`` with ``verb``; ``record`` is called before.

    Raises  InfrastructureError where the process is not one of this machine's, or is another user's.
    """
    problem: OSError | None = None
    try:
        if verb.encode() in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0"):
            record()
            os.kill(process, signal.SIGINT)
            return
    except OSError as error:
        problem = error
    raise InfrastructureError(
        f"tunectl {verb}, process {process}, cannot be interrupted from here",
        hint="it runs in another container or under another account: press Ctrl-C where it was started",
    ) from problem


def read_log_end(layout: ProjectPaths) -> str:
    """Return the last lines of ``build.log``; empty where no build was started in the background."""
    return read_file_end(layout.build_log)


def read_file_end(log: Path) -> str:
    """Return the last lines of the file ``log``; empty where there is none."""
    try:
        with log.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - MAX_LOG_BYTES))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return text.partition("\n")[2] if size > MAX_LOG_BYTES else text

"""One run at a time: an advisory lock that ends with the process that holds it, even by kill -9."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tunectl.artifacts import atomic_io
from tunectl.core.errors import InfrastructureError

PROBE_SECONDS = 0.2
"""Shortest wait for a lock: ``is_locked`` takes it for a moment, and is no run."""


class LockTimeoutError(InfrastructureError):
    """Raised where another process holds a lock; the same call may succeed in a moment."""


def try_lock(descriptor: int) -> bool:
    """Take the lock of an open file (its descriptor) without waiting; return False where another process holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def file_lock(
    path: Path,
    description: str,
    *,
    busy: str = "another run is working in this project",
    hint: str = "wait for it, or end that process, then run again",
    timeout_seconds: float = 0.0,
) -> Iterator[None]:
    """Hold the lock at ``path`` while the block runs; where it is taken, ``busy`` and the holder's ``description`` stand in the error.

    ``timeout_seconds``: seconds to wait for another holder; ``PROBE_SECONDS`` at least.
    Raises  LockTimeoutError naming the other process when it is taken.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise atomic_io.write_error(path, error) from error
    try:
        end = time.monotonic() + max(timeout_seconds, PROBE_SECONDS)
        while not try_lock(descriptor):
            if time.monotonic() >= end:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "an unnamed process"
                raise LockTimeoutError(f"{busy}: {holder}", hint=hint)
            time.sleep(0.05)
        with suppress(OSError):  # a full disk: the lock is held all the same
            os.ftruncate(descriptor, 0)
            os.pwrite(
                descriptor, f"{description}, process {os.getpid()}, since {time.strftime('%H:%M:%S')}".encode(), 0
            )
        yield
    finally:
        os.close(descriptor)


@contextmanager
def folder_lock(path: Path) -> Iterator[None]:
    """Hold the lock of the folder of file ``path`` while the block reads and rewrites it; waits for another holder. It leaves no file.

    Raises  InfrastructureError where the folder cannot be opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise atomic_io.write_error(path, error) from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock at ``path`` now; no file is created."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def read_holder(path: Path) -> str:
    """Return the description of the process that holds the lock at ``path``; empty where none holds it."""
    return path.read_text(encoding="utf-8", errors="replace") if is_locked(path) else ""

"""Questions for people, written in the background: ``tunectl annotate prepare`` as a process that continues when its starter ends.

``.tunectl/prepare.json`` says who started it and why, ``prepare.log`` has its output. The lock of the store of judgments says whether one
runs, so that one that was started in a terminal is found and stopped, too.
"""

from __future__ import annotations

from pathlib import Path

from tunectl.artifacts import atomic_io, lock
from tunectl.artifacts.paths import ProjectPaths
from tunectl.pipeline import background_build
from tunectl.pipeline.background_build import BuildRequest
from tunectl.preferences import annotation_store


def start_prepare(layout: ProjectPaths, store: Path, *, author: str, reason: str) -> BuildRequest:
    """Start ``tunectl annotate prepare`` for the judgments in ``store``, and return its record when it holds its lock, or has ended.

    Raises  LockTimeoutError where the store is open already; InfrastructureError where the log cannot be written.
    """
    starting = layout.prepare_log.with_suffix(".lock")
    with lock.file_lock(starting, "start of a preparation", timeout_seconds=background_build.START_SECONDS):
        holder = lock.read_holder(store / annotation_store.LOCK)
        if holder:
            raise lock.LockTimeoutError(f"{store} is open: {holder}", hint="wait until that ends, or stop it")
        process = background_build.start_detached(layout, ["annotate", "prepare"], layout.prepare_log)
        request = BuildRequest(process.pid, author, reason)
        atomic_io.write_json(layout.prepare_request, request)
        background_build.wait_for_lock(process, lambda: find_prepare(store))
        return request


def find_prepare(store: Path) -> int | None:
    """Return the id of the process that writes questions into ``store``; None where none does."""
    holder = lock.read_holder(store / annotation_store.LOCK)
    return background_build.parse_process(holder) if holder.startswith(annotation_store.PREPARE) else None

"""Notify open pages of changes: one thread checks files once a second, only while somebody is connected.

A stream reports that something has changed, not what: each page then reloads itself, so that filters and rights hold. A heartbeat every
15 seconds keeps proxies from closing the connection and finds out which browsers are gone.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tunectl.access import api_keys
from tunectl.artifacts import lock
from tunectl.artifacts.paths import ProjectPaths
from tunectl.canary import canary_store
from tunectl.console.read_context import stamp_files
from tunectl.core import logging_setup
from tunectl.preferences import annotation_store
from tunectl.retraining.run_store import LOCK

if TYPE_CHECKING:
    from tunectl.config.schema.root import TunectlConfig

LOOK_SECONDS: Final = 1.0
BEAT_SECONDS: Final = 15.0
MAX_STREAMS: Final = 64
SUFFIXES: Final = frozenset({".json", ".jsonl", ".db", ".sqlite", ".log"})
READ_BY_SQLITE: Final = "inference_log"
"""A folder in which SQLite creates and removes files also for readers: its own time of change means nothing."""


def _is_filled_journal(path: Path) -> bool:
    """Return whether a journal holds new rows of a service: readers leave an empty one while they read."""
    try:
        return path.suffix.endswith("-wal") and path.stat().st_size > 0
    except OSError:
        return False


def list_watched_files(layout: ProjectPaths, settings: TunectlConfig | None = None) -> Iterator[Path]:
    """Yield the files that screens are read from; ``settings`` adds those whose path it declares (annotations, keys file)."""
    state = layout.state_dir
    yield from sorted(layout.conf.rglob("*.yaml"))
    yield from (
        layout.dvc_lock,
        layout.pipeline,
        layout.failure,
        layout.executed,
        layout.calibration,
        layout.build_log,
        layout.prepare_log,
    )
    for folder in (
        "progress",
        "runs",
        "retrain",
        "retrain/inbox",
        "retrain/runs",
        "retrain/outcomes",
        "retrain/approvals",
        "sweeps",
        "track/sent",
        "inference_log",
        "monitor",
    ):
        watched_folder = state / folder
        if folder != READ_BY_SQLITE:
            yield watched_folder
        yield from sorted(
            path for path in watched_folder.glob("*") if path.suffix in SUFFIXES or _is_filled_journal(path)
        )
    yield from (layout.releases / name for name in ("champion.json", "canary.json", "events.jsonl", "releases"))
    yield from sorted(layout.jobs.glob("*/*.json"))
    yield from sorted((layout.releases / canary_store.RECORDS).glob("*.json"))
    if settings is not None:
        store = layout.root / settings.annotate.store
        yield from (store / annotation_store.ANNOTATIONS, store / annotation_store.TASKS)
        yield api_keys.find_keys_file(layout.root, settings.serve.keys_file)
    yield from layout.artifacts.glob("*/manifest.json")


def stamp_project(layout: ProjectPaths, settings: TunectlConfig | None = None) -> Any:
    """Return a value that changes whenever a file that a screen shows has changed."""
    locks = [layout.repro_lock, layout.stage_lock, layout.monitor_lock, layout.retrain / LOCK]
    if settings is not None:
        locks.append(layout.root / settings.annotate.store / annotation_store.LOCK)
    return stamp_files(list_watched_files(layout, settings)), tuple(map(lock.is_locked, locks))


class ChangeWatcher:
    """Checks the project's files once a second in one thread, while there are subscribers, and sets their events at a change."""

    def __init__(self, stamp: Callable[[], Any], seconds: float = LOOK_SECONDS) -> None:
        self._stamp, self._seconds = stamp, seconds
        self._lock = threading.Lock()
        self._listeners: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._thread: threading.Thread | None = None
        self.is_stopping: Callable[[], bool] = lambda: False
        """Whether the server ends: streams then end by themselves."""

    def subscribe(self) -> asyncio.Event | None:
        """Return an event of this event loop that is set at each change; None where there are too many subscribers."""
        event = asyncio.Event()
        with self._lock:
            if len(self._listeners) >= MAX_STREAMS:
                return None
            self._listeners[event] = asyncio.get_running_loop()
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="changes", daemon=True)
                self._thread.start()
        return event

    def unsubscribe(self, event: asyncio.Event) -> None:
        """Remove the subscriber of ``event``; the thread ends with the last one."""
        with self._lock:
            self._listeners.pop(event, None)

    def _read_stamp(self, last: Any) -> Any:
        """Return the stamp; the last one where it cannot be made, so that a mistake ends no updates."""
        try:
            return self._stamp()
        except Exception:  # noqa: BLE001  the thread goes on, whatever a file did
            logging_setup.get_logger(__name__).exception("what changed cannot be told")
            return last

    def _watch(self) -> None:
        pause, last = threading.Event(), self._read_stamp(None)
        while True:
            pause.wait(self._seconds)
            with self._lock:
                if not self._listeners:
                    self._thread = None
                    return
            now = self._read_stamp(last)
            if now == last and not self.is_stopping():
                continue
            last = now
            with self._lock:
                listeners = list(self._listeners.items())
            for event, loop in listeners:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(event.set)


async def stream_changes(
    watcher: ChangeWatcher, event: asyncio.Event, is_open: Callable[[], bool], heartbeat_seconds: float = BEAT_SECONDS
) -> AsyncIterator[bytes]:
    """Yield a server-sent event ``changed`` each time ``event`` is set, and a comment after ``heartbeat_seconds`` without one.

    Before each of them ``is_open`` is called; where it returns false (the session has ended), or the server stops, the stream ends.
    """
    number = 0
    try:
        yield b"retry: 1000\nevent: hello\ndata: \n\n"
        while True:
            try:
                await asyncio.wait_for(event.wait(), heartbeat_seconds)
            except TimeoutError:
                if not is_open():
                    return
                yield b": beat\n\n"
                continue
            event.clear()
            if watcher.is_stopping() or not is_open():
                return
            number += 1
            yield f"id: {number}\nevent: changed\ndata: \n\n".encode()
    finally:
        watcher.unsubscribe(event)

"""``tunectl watch``: the long-running program that retrains. One a project; all it knows is on the disk."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Final

from tunectl.artifacts import lock
from tunectl.artifacts.layout import Layout
from tunectl.backends import cron_calendar, process_group, sqlalchemy_store
from tunectl.backends.loop_metrics import LoopMetrics
from tunectl.config.root import Root
from tunectl.core import log
from tunectl.core.errors import TunectlError, UsageError
from tunectl.live import identity
from tunectl.live.store import LiveStore
from tunectl.release import book as books
from tunectl.release.book import Book
from tunectl.release.calendar import Schedule
from tunectl.release.store import Moved, Store
from tunectl.release.trials import Experiment, Trials
from tunectl.services.watcher import secret, trying
from tunectl.services.watcher.door import Door
from tunectl.services.watcher.driver import Driver
from tunectl.services.watcher.pages import Pages
from tunectl.services.watcher.place import Place
from tunectl.services.watcher.publishing import Publisher
from tunectl.services.watcher.work import Work

STORE: Final = "TUNECTL_STORE"
PAUSE: Final = 30.0
"""Seconds after a look that failed."""
REST: Final = 4.0
"""Times as long as a look took is waited for the next one: weeks of live traffic must not be read all the time."""
PATIENCE: Final = 20.0
"""Seconds that a change waits for somebody who copies into the store; what took hours is not thrown away for that."""
_log = log.get(__name__)


def store_of(root: Root, layout: Layout) -> Store:
    """The release store that the configuration, or the environment, names.

    Raises  UsageError for an address: what is built here is promoted in a folder, and copied from there.
    """
    place = os.environ.get(STORE) or root.watch.store
    if "://" in place:
        raise UsageError(
            f"watch.store = {place}: takes a folder",
            hint=f"set serve.store={place}: the watcher copies its folder there",
        )
    return Store(layout.root / place, PATIENCE)


def run(layout: Layout, root: Root, *, cost: str, once: bool = False) -> None:
    """Watch until SIGTERM or Ctrl-C; ``once``: until there is nothing to do now. ``cost`` says what a build takes.

    Raises  EnvironmentFailure when another watcher works here, or the port is taken; UsageError for a wrong schedule.
    """
    for name, declared in root.watch.schedules.items():
        cron_calendar.following(Schedule(name, declared.cron, declared.zone), datetime.now(UTC))
    place, store = Place(layout), store_of(root, layout)
    with lock.held(
        place.book / books.LOCK,
        "tunectl watch",
        busy=f"{place.book}: another watcher works here",
        hint="one is enough; end that process first",
        patience=1.0,  # whoever only looks whether a watcher runs holds it for a moment
    ):
        left = process_group.sweep(place.mark)
        if left:
            _log.warning("ended %d processes that a killed watcher had left", len(left))
        _Watcher(place, store, layout, root, cost).run(once=once)


class _Watcher:
    """The driver in one thread; the door, and what must not wait for a training, in others."""

    def __init__(self, place: Place, store: Store, layout: Layout, root: Root, cost: str) -> None:
        self._layout, self._root, self._trials = layout, root, Trials(store)
        self._store, self._book, self._metrics = store, Book(place.book), LoopMetrics(time.time())
        self._publisher, self._publishing = Publisher(store, root.serve.store), threading.Lock()
        lost = not place.secret.exists()
        signing = secret.made(place.secret, signs=True).encode()
        self._work = Work(place, store, self._live, root)
        self._driver = Driver(self._book, self._work, root.watch, signing, cron_calendar.following)
        self._wake = threading.Event()
        self._door = Door(
            self._book,
            Pages(self._book, self._trials, root.project, signing, lambda: cost),
            self._exposed,
            token=secret.made(layout.root / root.watch.token),
            alert_names=root.watch.alerts,
            nudge=self._wake.set,
            address=root.watch.address,
            port=root.watch.port,
        )
        if lost:
            self._driver.remind()

    def _live(self) -> AbstractContextManager[LiveStore]:
        return sqlalchemy_store.opened(identity.address(self._root.live), self._layout.root)

    def _exposed(self) -> bytes:
        experiments = self._trials.all()
        newest = self._trials.running() or (experiments[-1] if experiments else None)
        return self._metrics.text(self._book.runs(), self._book.settled(), self._store.champion(), newest)

    def run(self, *, once: bool) -> None:
        """Look, and look again, until told to stop; ``once``: until there is nothing to do.

        Raises  TunectlError with ``once``, where a look fails: nobody looks again.
        """
        told: SimpleQueue[None] = SimpleQueue()
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: told.put(None))
        threading.Thread(target=self._until_told, args=(told,), name="stop", daemon=True).start()
        self._door.open()
        watch = self._root.watch
        _log.info("watching; http://%s:%d, mode %s", watch.address, self._door.port, watch.mode)
        if not once:
            threading.Thread(target=self._beside, name="beside", daemon=True).start()
        try:
            while not self._driver.stop.is_set():
                self._wake.clear()
                again, pause = self._look(once=once)
                if not again and once:
                    self._experiments(datetime.now(UTC))
                    self._publish()
                    break
                if not again:
                    self._wake.wait(pause)
        finally:
            self._door.close()

    def _until_told(self, told: SimpleQueue[None]) -> None:
        """A handler of signals may do no more than put something into a queue: an event's lock may be held by whom it interrupts."""
        told.get()
        self._driver.stop.set()
        self._wake.set()

    def _look(self, *, once: bool) -> tuple[bool, float]:
        """One look: whether to look again at once, else seconds to wait."""
        began = time.monotonic()
        try:
            if self._driver.look(datetime.now(UTC)):
                return True, 0.0
        except Exception as error:
            if once:
                raise
            self._failed("this look failed", error)
            return False, max(PAUSE, self._root.watch.poll_seconds)
        finally:
            self._publish()
            self._metrics.looked = time.time()
        return False, self._pause(began)

    def _beside(self) -> None:
        """What a training of hours must not hold up: people's own experiments, and servers that look at an address."""
        while not self._driver.stop.is_set():
            began = time.monotonic()
            try:
                self._experiments(datetime.now(UTC))
            except Exception as error:  # noqa: BLE001  whatever it is, harm is looked for again in a moment
                self._failed("the look at the experiment failed", error)
            self._publish()
            self._driver.stop.wait(self._pause(began))

    def _pause(self, began: float) -> float:
        return max(self._root.watch.poll_seconds, REST * (time.monotonic() - began))

    def _failed(self, what: str, error: Exception) -> None:
        self._metrics.errors += 1
        known = isinstance(error, TunectlError | OSError)
        _log.error("%s: %s", what, error, exc_info=None if known else error)

    def _publish(self) -> None:
        """A place that is away keeps servers there from hearing of it, and nothing else from going on."""
        with self._publishing:
            try:
                self._publisher.publish()
            except (TunectlError, OSError) as error:
                self._failed("servers at serve.store do not hear of the last change yet", error)

    def _experiments(self, now: datetime) -> None:
        """A person's own experiment is looked at, ended and promoted by the same rules; one whose retrain has ended is ended."""
        found = self._trials.running()
        if found is None:
            self._trials.mend()
        elif found.run is None:
            self._tried(found, now)
        elif any(run.id == found.run and run.ended for run in self._book.runs()):
            self._trials.end(found, "running", now, None)

    def _tried(self, found: Experiment, now: datetime) -> None:
        pointer = self._store.champion()  # before the look: what moved it since then, the look may not have seen
        with self._live() as live:
            reading = trying.looked(found, live, self._trials, now)
        if reading is None:
            return
        if reading.decision == "running":
            self._trials.mend()
            return
        if reading.decision == "promote":
            words, seen = f"experiment {found.id}: {reading.reason}", pointer.sequence if pointer else 0
            try:
                self._store.promote(found.challenger, by="tunectl watch", why=words, after=seen)
            except Moved as error:
                _log.info("experiment %s: %s", found.id, error.message)
                self._tried(found, now)  # its arms are another's now, and this look says so
                return
        self._trials.end(found, reading.decision, now, reading)
        _log.info("experiment %s: %s, %s", found.id, reading.decision, reading.reason)

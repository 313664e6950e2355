"""``tunectl retrain controller``: the long-running program that retrains. One per project; all its state is on the disk."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Final

from tunectl.access import api_keys
from tunectl.access.api_keys import KeyStore
from tunectl.access.signatures import TRUSTED_KEYS_ENV, TrustStore
from tunectl.artifacts import lock
from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.storage import inference_log_sql
from tunectl.backends.system import supervised_process
from tunectl.canary.canary_store import Experiment, ExperimentStore
from tunectl.config.schema.root import TunectlConfig
from tunectl.core import logging_setup
from tunectl.core.errors import GateError, TunectlError, UsageError
from tunectl.inference_log import pseudonyms
from tunectl.inference_log.log_store import InferenceLog
from tunectl.pipeline.build_tracking import ReleaseMirror
from tunectl.registry.release_store import ChampionMovedError, ReleaseRegistry
from tunectl.retraining import approvals, canary_run, cron, secret_files
from tunectl.retraining import run_store as books
from tunectl.retraining.approval_pages import ApprovalPages
from tunectl.retraining.controller import RetrainController
from tunectl.retraining.local_activities import LocalActivities
from tunectl.retraining.registry_sync import Publisher
from tunectl.retraining.retrain_metrics import RetrainMetrics
from tunectl.retraining.run_store import RunStore
from tunectl.retraining.schedules import CronSchedule
from tunectl.retraining.webhook_api import RetrainApi, RetrainSecrets
from tunectl.retraining.workspace import RetrainWorkspace

STORE: Final = "TUNECTL_REGISTRY"
PAUSE: Final = 30.0
"""Seconds until the next reconcile after a failed one."""
REST: Final = 4.0
"""Pause before the next reconcile, as a multiple of its duration: weeks of live traffic must not be read all the time."""
KEYS_SECONDS: Final = 1.0
"""Seconds between checks of the keys file."""
PATIENCE: Final = 20.0
"""Seconds that a change of the registry waits for its lock, so that the work of hours is not lost."""
_log = logging_setup.get_logger(__name__)


def open_registry(root: TunectlConfig, layout: ProjectPaths) -> ReleaseRegistry:
    """Return the release store that the configuration, or the environment, names.

    Raises  UsageError for an address: what is built here is promoted in a folder, and copied from there.
    """
    place = os.environ.get(STORE) or root.retrain.registry
    if "://" in place:
        raise UsageError(
            f"retrain.registry = {place}: takes a folder",
            hint=f"set serve.registry={place}: the retrain controller copies its folder there",
        )
    trusted = os.environ.get(TRUSTED_KEYS_ENV) or root.serve.trusted_keys_file
    return ReleaseRegistry(layout.root / place, PATIENCE, TrustStore(layout.root / trusted) if trusted else None)


def run(layout: ProjectPaths, root: TunectlConfig, *, cost: str, once: bool = False) -> None:
    """Run until SIGTERM or Ctrl-C; ``once``: until there is nothing to do now. ``cost`` describes the cost of a build.

    Raises  InfrastructureError when another controller works here, or the port is taken; UsageError for a wrong schedule.
    """
    for name, declared in root.retrain.schedules.items():
        cron.next_slot(CronSchedule(name, declared.cron, declared.zone), datetime.now(UTC))
    place, store = RetrainWorkspace(layout), open_registry(root, layout)
    with lock.file_lock(
        place.store_dir / books.LOCK,
        "tunectl retrain controller",
        busy=f"{place.store_dir}: another retrain controller works here",
        hint="one is enough; end that process first",
        patience=1.0,  # whoever only looks whether a controller runs holds it for a moment
    ):
        place.close_to_others()
        left = supervised_process.kill_marked(place.mark)
        if left:
            _log.warning("ended %d processes that a killed controller had left", len(left))
        _RetrainerProcess(place, store, layout, root, cost).run(once=once)


class _RetrainerProcess:
    """The controller in one thread; the HTTP API, and what must not wait for a training, in others."""

    def __init__(
        self, place: RetrainWorkspace, store: ReleaseRegistry, layout: ProjectPaths, root: TunectlConfig, cost: str
    ) -> None:
        self._layout, self._root, self._trials = layout, root, ExperimentStore(store)
        self._store, self._book, self._metrics = store, RunStore(place.store_dir), RetrainMetrics(time.time())
        self._publisher, self._publishing = Publisher(store, root.serve.registry), threading.Lock()
        self._mirror = ReleaseMirror(layout, root.track, store)
        lost = not place.secret.exists()
        signing = secret_files.load_or_create(place.secret, signs=True).encode()
        self._work = LocalActivities(place, store, self._live, root)
        self._driver = RetrainController(self._book, self._work, root.retrain, signing, cron.next_slot)
        self._wake = threading.Event()
        self._door = RetrainApi(
            self._book,
            ApprovalPages(self._book, self._trials, root.project, signing, lambda: cost),
            self._render_metrics,
            secrets=RetrainSecrets(
                secret_files.load_token(layout.root, root.retrain.token_file),
                KeyStore(api_keys.find_keys_file(layout.root, root.serve.keys_file), KEYS_SECONDS),
                root.retrain.approval.people,
            ),
            alert_names=root.retrain.alerts,
            nudge=self._wake.set,
            address=root.retrain.host,
            port=root.retrain.port,
        )
        if lost:
            self._driver.resend_approvals()
        self._warn_without_approvers(root)

    def _warn_without_approvers(self, root: TunectlConfig) -> None:
        """Warn at the start, not when a question is open, that nobody can answer it."""
        approval, path = root.retrain.approval, api_keys.find_keys_file(self._layout.root, root.serve.keys_file)
        if "required" not in (approval.training, approval.promotion):
            return
        if not approvals.list_approvers(api_keys.read(path), approval.people):
            _log.warning(
                "a person must approve (retrain.approval), and no key in %s may: tunectl serve keys add %s --scope decide --scope look",
                path,
                approval.people[0] if approval.people else "NAME",
            )

    def _live(self) -> AbstractContextManager[InferenceLog]:
        return inference_log_sql.open_log(pseudonyms.address(self._root.inference_log), self._layout.root)

    def _render_metrics(self) -> bytes:
        experiments = self._trials.all()
        newest = self._trials.running() or (experiments[-1] if experiments else None)
        return self._metrics.text(self._book.runs(), self._book.list_outcomes(), self._store.champion(), newest)

    def run(self, *, once: bool) -> None:
        """Reconcile repeatedly until told to stop; ``once``: until there is nothing to do.

        Raises  TunectlError with ``once``, where a reconcile fails: it is not tried again.
        """
        told: SimpleQueue[None] = SimpleQueue()
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: told.put(None))
        threading.Thread(target=self._until_told, args=(told,), name="stop", daemon=True).start()
        self._door.open()
        watch = self._root.retrain
        _log.info(
            "retrain controller runs; http://%s:%d, approval of a training: %s",
            watch.host,
            self._door.port,
            watch.approval.training,
        )
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
        """Wait for a stop. A signal handler may only put into a queue: the interrupted thread may hold an event's lock."""
        told.get()
        self._driver.stop.set()
        self._wake.set()

    def _look(self, *, once: bool) -> tuple[bool, float]:
        """Reconcile once; return whether to reconcile again at once, else seconds to wait."""
        began = time.monotonic()
        try:
            if self._driver.reconcile(datetime.now(UTC)):
                return True, 0.0
        except Exception as error:
            if once:
                raise
            self._record_error("this reconcile failed", error)
            return False, max(PAUSE, self._root.retrain.poll_seconds)
        finally:
            self._publish()
            self._metrics.last_reconcile = time.time()
        return False, self._pause(began)

    def _beside(self) -> None:
        """Run what a long training must not delay: canaries started by people, and the mirror of the registry."""
        while not self._driver.stop.is_set():
            began = time.monotonic()
            try:
                self._experiments(datetime.now(UTC))
            except Exception as error:  # noqa: BLE001  whatever it is, harm is looked for again in a moment
                self._record_error("the evaluation of the canary test failed", error)
            self._publish()
            self._driver.stop.wait(self._pause(began))

    def _pause(self, began: float) -> float:
        return max(self._root.retrain.poll_seconds, REST * (time.monotonic() - began))

    def _record_error(self, what: str, error: Exception) -> None:
        self._metrics.errors += 1
        known = isinstance(error, TunectlError | OSError)
        _log.error("%s: %s", what, error, exc_info=None if known else error)

    def _publish(self) -> None:
        """Mirror the registry. A storage failure delays its servers only; the controller continues."""
        with self._publishing:
            try:
                self._publisher.sync_if_changed()
                self._mirror.sync_if_changed()
            except (TunectlError, OSError) as error:
                self._record_error("servers at serve.registry do not hear of the last change yet", error)

    def _experiments(self, now: datetime) -> None:
        """Check canaries that people started, by the same rules; end one whose retrain run has ended."""
        found = self._trials.running()
        if found is None:
            self._trials.repair()
        elif found.run is None:
            self._advance_canary(found, now)
        elif any(run.id == found.run and run.ended for run in self._book.runs()):
            self._trials.end(found, "running", now, None)

    def _advance_canary(self, found: Experiment, now: datetime) -> None:
        pointer = self._store.champion()  # before the look: what moved it since then, the look may not have seen
        with self._live() as live:
            reading = canary_run.evaluate_canary(found, live, self._trials, now)
        if reading is None:
            return
        if reading.decision == "running":
            self._trials.repair()
            return
        if reading.decision == "promote":
            words, seen = f"experiment {found.id}: {reading.reason}", pointer.sequence if pointer else 0
            try:
                self._store.promote(found.challenger, author="tunectl retrain controller", message=words, after=seen)
            except ChampionMovedError as error:
                _log.info("experiment %s: %s", found.id, error.message)
                self._advance_canary(found, now)  # its variants are another's now, and this look says so
                return
            except GateError as error:  # a key was revoked: whoever signs again before the end loses nothing
                if now < found.until:
                    raise
                self._trials.end(found, "running", now, reading, message=error.message)
                return
        self._trials.end(found, reading.decision, now, reading)
        _log.info("experiment %s: %s, %s", found.id, reading.decision, reading.reason)

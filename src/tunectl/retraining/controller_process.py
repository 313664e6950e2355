"""The process of the retrain controller: reconciling in one thread; the HTTP API, and what must not wait for a training, in others."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Final

from tunectl.access import api_keys
from tunectl.access.api_keys import KeyStore
from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.storage import inference_log_sql
from tunectl.canary.canary_store import CanaryRecord, CanaryStore
from tunectl.config.schema.root import TunectlConfig
from tunectl.core import logging_setup
from tunectl.core.errors import ArtifactError, GateError, TunectlError
from tunectl.inference_log import pseudonyms
from tunectl.inference_log.log_store import InferenceLog
from tunectl.pipeline.build_tracking import ReleaseMirror
from tunectl.registry.release_store import ChampionMovedError, ReleaseRegistry
from tunectl.retraining import approvals, canary_run, cron, secret_files
from tunectl.retraining.approval_pages import ApprovalPages
from tunectl.retraining.controller import RetrainController
from tunectl.retraining.local_activities import LocalActivities
from tunectl.retraining.registry_sync import Publisher
from tunectl.retraining.retrain_metrics import RetrainMetrics
from tunectl.retraining.run_store import RunStore
from tunectl.retraining.webhook_api import RetrainApi, RetrainSecrets
from tunectl.retraining.workspace import RetrainWorkspace

PAUSE: Final = 30.0
"""Seconds until the next reconcile after one that failed."""
REST: Final = 4.0
"""Pause before the next reconcile, as a multiple of its duration: weeks of live traffic must not be read all the time."""
KEYS_SECONDS: Final = 1.0
"""Seconds between checks of whether the keys file has changed."""
_log = logging_setup.get_logger(__name__)


class RetrainerProcess:
    """The controller's process: reconciling in one thread; beside it the HTTP API, canaries that people started, and the mirror of the registry."""

    def __init__(
        self, workspace: RetrainWorkspace, store: ReleaseRegistry, layout: ProjectPaths, root: TunectlConfig, cost: str
    ) -> None:
        self._layout, self._root, self._canaries = layout, root, CanaryStore(store)
        self._store, self._run_store, self._metrics = store, RunStore(workspace.store_dir), RetrainMetrics(time.time())
        self._publisher, self._publishing = Publisher(store, root.serve.registry), threading.Lock()
        self._mirror = ReleaseMirror(layout, root.track, store)
        lost = not workspace.secret.exists()
        signing = secret_files.load_or_create(workspace.secret, signs=True).encode()
        self._work = LocalActivities(workspace, store, self._open_log, root)
        self._driver = RetrainController(self._run_store, self._work, root.retrain, signing, cron.next_slot)
        self._wake = threading.Event()
        self._api = RetrainApi(
            self._run_store,
            ApprovalPages(self._run_store, self._canaries, root.project, signing, lambda: cost),
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

    def _open_log(self) -> AbstractContextManager[InferenceLog]:
        return inference_log_sql.open_log(pseudonyms.address(self._root.inference_log), self._layout.root)

    def _render_metrics(self) -> bytes:
        canaries = self._canaries.all()
        newest = self._canaries.running() or (canaries[-1] if canaries else None)
        return self._metrics.text(
            self._run_store.runs(), self._run_store.list_outcomes(), self._store.champion(), newest
        )

    def run(self, *, once: bool) -> None:
        """Reconcile repeatedly until a stop signal; ``once``: until there is nothing to do.

        Raises  TunectlError with ``once``, where a reconcile fails: it is not tried again.
        """
        stop_signals: SimpleQueue[None] = SimpleQueue()
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: stop_signals.put(None))
        threading.Thread(target=self._wait_for_stop, args=(stop_signals,), name="stop", daemon=True).start()
        self._api.open()
        settings = self._root.retrain
        _log.info(
            "retrain controller runs; http://%s:%d, approval of a training: %s",
            settings.host,
            self._api.port,
            settings.approval.training,
        )
        if not once:
            threading.Thread(target=self._run_canaries, name="canaries", daemon=True).start()
        try:
            while not self._driver.stop.is_set():
                self._wake.clear()
                is_due, pause = self._check_for_work(once=once)
                if not is_due and once:
                    self._advance_canaries(datetime.now(UTC))
                    self._publish()
                    break
                if not is_due:
                    self._wake.wait(pause)
        finally:
            self._api.close()

    def _wait_for_stop(self, stop_signals: SimpleQueue[None]) -> None:
        """Wait for a stop. A signal handler may only put into a queue: the interrupted thread may hold an event's lock."""
        stop_signals.get()
        self._driver.stop.set()
        self._wake.set()

    def _check_for_work(self, *, once: bool) -> tuple[bool, float]:
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

    def _run_canaries(self) -> None:
        """Run what a long training must not delay: canaries started by people, and the mirror of the registry."""
        while not self._driver.stop.is_set():
            began = time.monotonic()
            try:
                self._advance_canaries(datetime.now(UTC))
            except Exception as error:  # noqa: BLE001  whatever it is, harm is looked for again in a moment
                self._record_error("the evaluation of the canary test failed", error)
            self._publish()
            self._driver.stop.wait(self._pause(began))

    def _pause(self, began: float) -> float:
        return max(self._root.retrain.poll_seconds, REST * (time.monotonic() - began))

    def _record_error(self, what: str, error: Exception) -> None:
        self._metrics.errors += 1
        is_expected = isinstance(error, TunectlError | OSError)
        _log.error("%s: %s", what, error, exc_info=None if is_expected else error)

    def _publish(self) -> None:
        """Mirror the registry. A storage failure delays its servers only; the controller continues."""
        with self._publishing:
            try:
                self._publisher.sync_if_changed()
                self._mirror.sync_if_changed()
            except (TunectlError, OSError) as error:
                self._record_error("the last change is not at serve.registry yet", error)

    def _advance_canaries(self, now: datetime) -> None:
        """Check canaries that people started, by the same rules; end one whose retrain run has ended."""
        canary = self._canaries.running()
        if canary is None:
            self._canaries.repair()
        elif canary.run is None:
            self._advance_canary(canary, now)
        elif any(run.id == canary.run and run.ended for run in self._run_store.runs()):
            self._canaries.end(canary, "running", now, None)

    def _advance_canary(self, canary: CanaryRecord, now: datetime) -> None:
        pointer = self._store.champion()  # before the look: what moved it since then, the look may not have seen
        with self._open_log() as log:
            reading = canary_run.evaluate_canary(canary, log, self._canaries, now)
        if reading is None:
            return
        if reading.decision == "running":
            self._canaries.repair()
            return
        if reading.decision == "promote":
            message, sequence = f"canary {canary.id}: {reading.reason}", pointer.sequence if pointer else 0
            try:
                self._store.promote(
                    canary.challenger, author="tunectl retrain controller", message=message, after=sequence
                )
            except ChampionMovedError as error:
                _log.info("canary %s: %s", canary.id, error.message)
                self._advance_canary(canary, now)  # its variants are another's now, and this look says so
                return
            except (
                ArtifactError,
                GateError,
            ) as error:  # a key was revoked, a file is damaged: who mends it in time loses nothing
                if now < canary.until:
                    raise
                self._canaries.end(canary, "running", now, reading, message=error.message)
                return
        self._canaries.end(canary, reading.decision, now, reading)
        _log.info("canary %s: %s, %s", canary.id, reading.decision, reading.reason)

"""Send builds and releases to the trackers of ``track.to``: written to a spool at once, sent by a separate process.

A build neither fails nor waits because of a tracker: an error is only logged, and unsent builds stay in
the spool for the next ``tunectl track sync``.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunectl.artifacts import atomic_io, lock
from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.reports import evaluate
from tunectl.backends.sweeps import trial_pruning
from tunectl.backends.system import supervised_process
from tunectl.config.loading import override_file
from tunectl.core import logging_setup
from tunectl.core.errors import TunectlError
from tunectl.core.optional import RequiredPackage, describe_missing, find_missing
from tunectl.evaluation import results
from tunectl.pipeline.stages import STAGES
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.tracking import build_record, spool
from tunectl.tracking.build_record import BuildRecord

if TYPE_CHECKING:
    from tunectl.config.schema.root import TunectlConfig
    from tunectl.config.schema.track import Track

_log = logging_setup.get_logger(__name__)
MAX_ERRORS = 3
"""Refused builds after which a sync gives up: then the tracker is the problem."""
SPOOL, LOG, LOCK, WANDB = "spool", "sync.log", "lock", "wandb"


def record_build(layout: ProjectPaths, root: TunectlConfig, seconds: float, exit_code: int) -> str:
    """Write the record of a build to the spool, start sending it, and return its id; empty where ``track.to`` is empty, or it cannot be written.

    An error is logged, not raised.
    """
    if not root.track.to:
        return ""
    try:
        record = describe_build(layout, root, seconds, exit_code)
        files = [(layout.artifacts / name, name) for name in build_record.FILES]
        with tempfile.TemporaryDirectory() as scratch:
            files += [(_write_report(layout, Path(scratch)), f"evaluate/{results.REPORT}")]
            spool.save(layout.track / SPOOL, record, [(path, name) for path, name in files if path.is_file()])
    except (TunectlError, OSError, ValueError, KeyError) as error:
        _log.warning("this build is not tracked: %s", error)
        return ""
    missing = find_missing(RequiredPackage(name, name, "track.to") for name in root.track.to)
    if missing:
        _log.warning("this build waits in %s: %s", layout.track, describe_missing(missing))
        return record.id
    start_sync(layout, root.track)
    return record.id


def _write_report(layout: ProjectPaths, folder: Path) -> Path:
    """Write the evaluation report as a tracker gets it: without the inputs and answers that it quotes. No file before evaluate ran."""
    path, measured = folder / results.REPORT, layout.artifacts / "evaluate" / results.NAME
    if measured.is_file():
        page = evaluate.page(
            results.drop_quotations(results.load(measured)),
            history=layout.artifacts / "sft" / "history.csv",
            split=layout.artifacts / "split" / "report.json",
        )
        atomic_io.write_text(path, page)
    return path


def start_sync(layout: ProjectPaths, settings: Track) -> None:
    """Start ``tunectl track sync`` as a process that outlives this one; do nothing in the worktree of a retrain or sweep, whose project sends its builds."""
    if not settings.to or supervised_process.MARK in os.environ:
        return
    layout.track.mkdir(parents=True, exist_ok=True)
    try:
        with (layout.track / LOG).open("ab") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "tunectl", "track", "sync"],
                cwd=layout.root,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        threading.Thread(target=process.wait, daemon=True).start()  # no zombie is left while we live
    except OSError as error:
        _log.warning("tunectl track sync could not be started: %s", error)


class ReleaseMirror:
    """Starts ``tunectl track sync`` (registry to MLflow's model registry) when champion or challenger changed since the last call."""

    def __init__(self, layout: ProjectPaths, settings: Track, store: ReleaseRegistry) -> None:
        self._layout, self._settings, self._store = layout, settings, store
        self._last_sync = (store.champion(), store.canary())

    def sync_if_changed(self) -> bool:
        """Start ``tunectl track sync`` in a separate process if champion or challenger changed; return whether it was started."""
        now = (self._store.champion(), self._store.canary())
        if self._settings.registered_model is None or now == self._last_sync:
            return False
        self._last_sync = now
        start_sync(self._layout, self._settings)
        return True


def mirror_releases(layout: ProjectPaths) -> None:
    """Start ``tunectl track sync`` after a release command, where ``track.registered_model`` is set; do nothing for an invalid ``conf/``."""
    from tunectl.config.loading import checks

    if not (layout.conf / "config.yaml").is_file():
        return
    try:
        settings = checks.load_project_config(layout).root.track
    except TunectlError as error:
        _log.debug("releases are not mirrored: %s", error)
        return
    if settings.registered_model is not None:
        start_sync(layout, settings)


def describe_build(layout: ProjectPaths, root: TunectlConfig, seconds: float, exit_code: int) -> BuildRecord:
    """Return the tracking record of the build that has just ended, after ``seconds`` and with ``exit_code``."""
    from tunectl.backends.vcs import dvc_lock, git_worktree

    executed = set(layout.executed.read_text(encoding="utf-8").split()) if layout.executed.is_file() else set()
    overrides = [override.text for override in override_file.load_overrides(layout)]
    started = time.time() - seconds
    tags = {"tunectl.exit_code": str(exit_code)}
    if layout.failure.is_file():
        failed: dict[str, object] = atomic_io.read_json(layout.failure)
        tags["tunectl.failure"] = f"{failed['stage']}: {failed['message']}"[:500]
    try:
        tags["git.commit"] = git_worktree.revision(layout.root)
    except TunectlError as error:
        _log.debug("no commit: %s", error)
    locked = dvc_lock.read_lock_file(layout.root)
    digests = {
        stage: output.md5
        for stage in build_record.DATA
        if stage in locked and (output := locked[stage].outputs.get(f"artifacts/{stage}")) is not None
    }
    tags["dvc.lock"] = atomic_io.sha256_json(
        {name: [item.md5 for item in stage.outputs.values()] for name, stage in locked.items()}
    )[:16]
    if trial_pruning.VARIABLE in os.environ:
        tags["tunectl.sweep_trial"] = trial_pruning.describe_trial(os.environ[trial_pruning.VARIABLE])
    params = build_record.select_params(overrides, [stage.name for stage in STAGES])
    return BuildRecord(
        id=f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(started))}-{secrets.token_hex(3)}",
        project=root.project,
        started=started,
        seconds=round(seconds, 3),
        exit_code=exit_code,
        tags=tags,
        params={"seed": str(root.seed), "project": root.project, **params},
        metrics=build_record.read_scores(layout),
        digests=digests,
        stages=[build_record.read_stage(layout, stage.name) for stage in STAGES if stage.name in executed],
    )


def send_spool(layout: ProjectPaths, settings: Track, tell: Callable[[str], None]) -> int:
    """Send every build of the spool to every tracker, then mirror the releases; return how many builds were sent. ``tell`` gets progress lines.

    Raises  LockTimeoutError where another process is sending; MissingExtraError; the error of the first refused build,
            which stays in the spool, after the others were tried.
    """
    with lock.file_lock(
        layout.track / LOCK, "tunectl track sync", busy="another process sends them", timeout_seconds=120
    ):
        trackers = [(name, _open_tracker(name, settings, layout.track / WANDB)) for name in settings.to]
        count, errors = 0, list[TunectlError]()
        for folder in spool.list_builds(layout.track / SPOOL):
            try:
                addresses: dict[str, str] = {name: tracker.send(folder) for name, tracker in trackers}
            except TunectlError as error:  # one that no tracker takes must not keep the others back
                errors.append(error)
                if len(errors) >= MAX_ERRORS:
                    raise
                continue
            spool.mark_sent(layout.track / spool.SENT, folder.name, addresses)
            spool.remove(folder)
            tell(f"build {folder.name} sent to {', '.join(settings.to)}")
            count += 1
        if errors:
            raise errors[0]
        for name, tracker in trackers:
            if name == "mlflow" and settings.registered_model is not None:
                for line in tracker.mirror(ReleaseRegistry(layout.releases)):
                    tell(line)
    return count


def list_waiting(layout: ProjectPaths) -> list[BuildRecord]:
    """Return the records of the builds in the spool, which were not sent yet."""
    return [spool.load(folder) for folder in spool.list_builds(layout.track / SPOOL)]


def _open_tracker(name: str, settings: Track, folder: Path) -> Any:
    """Open ``mlflow`` or ``wandb``, as ``name`` says; the other one is not imported."""
    if name == "mlflow":
        from tunectl.backends.tracking.mlflow_tracker import MlflowTracker

        return MlflowTracker(settings)
    from tunectl.backends.tracking.wandb_tracker import WandbTracker

    return WandbTracker(settings, folder)

"""``tunectl log erase|prune|purge``: delete one person's data, delete what is old, and rewrite the files of what was deleted."""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import UsageError
from tunectl.inference_log.erasure import BUSY, LIMIT

if TYPE_CHECKING:
    from pathlib import Path

    from tunectl.config.schema.feedback import FeedbackFromLog
    from tunectl.config.schema.root import TunectlConfig
    from tunectl.config.schema.serve import ServeSettings
    from tunectl.inference_log.log_store import InferenceLog

    LogSettings = TunectlConfig | ServeSettings

NOBODY = (
    "Nothing was erased: the log has nothing under that name. Names are stored as hashes: spell it as the client did, and give "
    "this command the server's own hash key ({variable}, or its file)."
)
LONGEST = 99_999
"""Largest number of days for ``--days``."""
CACHED = (
    "DVC's cache still has what earlier builds were made of, live text among it: once a build without it is the one in this "
    "folder, and while no retrain runs, dvc gc -w deletes all that this folder does not need."
)


def erase(args: argparse.Namespace, layout: ProjectPaths, root: LogSettings, store: InferenceLog) -> int:
    """Delete all data of the user that ``args`` name, and print the numbers; return the exit code."""
    from tunectl.inference_log import erasure, pseudonyms
    from tunectl.inference_log.log_store import ErasureResult

    hashes = [args.hash]
    if args.hash is None:
        hash_key = pseudonyms.load_hash_key(root.inference_log, layout.root, make=False)
        pseudonyms.check_hash_key(store, root.inference_log, hash_key)
        name = args.user if args.user is not None else pseudonyms.key_holder_name(args.key)
        hashes = pseudonyms.list_pseudonyms(name, hash_key)
    folder = (layout.root / root.inference_log.hash_key_file).parent
    by_key, now = args.key is not None, datetime.now(UTC)
    results = [erasure.erase_person(store, folder, hashed, by_key=by_key, at=now) for hashed in hashes]
    result = ErasureResult(
        sum(one.inferences for one in results),
        sum(one.feedback for one in results),
        results[-1].journal_busy,
    )
    message = (
        f"Erased: {result.inferences} inferences, {result.feedback} feedback records. Their text is deleted, and no build uses "
        f"them. {LIMIT}"
    )
    if not (result.inferences or result.feedback):
        message = NOBODY.format(variable=root.inference_log.hash_key_env)
    if result.journal_busy:
        message = f"{message} {BUSY}"
    _print_result(
        args, {"erased": result.inferences, "feedback": result.feedback, "journal_busy": result.journal_busy}, message
    )
    return 0


def prune(args: argparse.Namespace, layout: ProjectPaths, root: LogSettings, store: InferenceLog) -> int:
    """Delete inferences older than ``--days``, and drift reports and snapshots of that age that no build needs; return the exit code.

    Raises  UsageError for an invalid number of days.
    """
    from tunectl.config.schema.root import TunectlConfig
    from tunectl.monitoring import report_files

    days = root.inference_log.retention_days if args.days is None else args.days
    if days is None or not 1 <= days <= LONGEST:
        raise UsageError(
            f"prune: the retention time must be 1 to {LONGEST} days; it is {'not set' if days is None else days}",
            hint="set inference_log.retention_days, or give --days N",
        )
    before = datetime.now(UTC) - timedelta(days=days)
    windows = store.windows()
    count = store.retain(before)
    if isinstance(root, TunectlConfig):
        report_files.prune_older(layout.root / root.monitor.reports, windows, before)
    snapshots = _prune_snapshots(layout, root, before)
    _print_result(
        args,
        {"deleted": count, "snapshots": snapshots, "before": before.isoformat()},
        f"{count} inferences from before {before:%Y-%m-%d} are deleted"
        + (f", and {snapshots} snapshots of retrains that were not promoted" if snapshots else ""),
    )
    return 0


def feedback_config(root: LogSettings) -> FeedbackFromLog | None:
    """Return the section ``feedback``, which names the folder of snapshots; None if it is switched off, and in a container, which has no ``conf/``."""
    from tunectl.config.schema.feedback import FeedbackFromLog
    from tunectl.config.schema.root import TunectlConfig

    section = root.feedback.root if isinstance(root, TunectlConfig) else None
    return section if isinstance(section, FeedbackFromLog) else None


def _find_snapshots(layout: ProjectPaths, root: LogSettings) -> Path:
    """Return the folder of snapshots; they stay there when ``feedback`` is switched off."""
    section = feedback_config(root)
    return layout.snapshots if section is None else layout.root / section.snapshots


def _prune_snapshots(layout: ProjectPaths, root: LogSettings, before: datetime) -> int:
    """Delete old snapshots, except those of the last build, of a running retrain, and of promoted ones (their branch may not be merged yet)."""
    from tunectl.inference_log import erasure, project_folder, training_window
    from tunectl.retraining.run_store import RunStore

    section = feedback_config(root)
    window = project_folder.NEW_WINDOW if section is None else section.window
    protected_ids = {one.id for one in training_window.load_window(layout.root / window).snapshots}
    for run in RunStore(layout.retrain).runs():
        if run.state == "promoted" or not run.ended:
            protected_ids.add(run.facts("proposed").get("snapshot", {}).get("id", ""))
    return erasure.prune_snapshots(_find_snapshots(layout, root), protected_ids, before)


def vacuum(args: argparse.Namespace, layout: ProjectPaths, root: LogSettings, store: InferenceLog) -> int:
    """Rewrite database and snapshots, and delete exports and reports, so that no file holds deleted data (``log purge``); return the exit code."""
    import shutil

    from tunectl.config.schema.root import TunectlConfig
    from tunectl.inference_log import erasure
    from tunectl.monitoring import report_files
    from tunectl.retraining import golden_set
    from tunectl.retraining.workspace import RetrainWorkspace

    emptied = store.purge()
    shutil.rmtree(layout.gates, ignore_errors=True)
    for registry in _list_registry_folders(layout, root):
        shutil.rmtree(registry / golden_set.SCRATCH, ignore_errors=True)
    shutil.rmtree(layout.inference_log_exports, ignore_errors=True)
    deletion_note = f"{layout.inference_log_exports} is deleted"
    if isinstance(root, TunectlConfig):
        folder = layout.root / root.monitor.reports
        report_files.prune(folder, 0)
        deletion_note = f"{layout.inference_log_exports} and the drift reports in {folder} are deleted"
    sentences = [f"the database is written anew; {deletion_note}."]
    if not _delete_unfinished(layout, root):
        sentences.append(
            f"A stage or tunectl annotate runs: {layout.scratch} and {layout.state_dir / 'work'} stay, and may have text that was "
            "deleted. Purge again when it has ended."
        )
    worktree = RetrainWorkspace(layout).worktree
    if worktree.exists():
        sentences.append(f"{worktree} has what the last retrain was made of, until the next one begins.")
    if not emptied:
        sentences.append(BUSY)
    erasure.purge(_find_snapshots(layout, root), store)
    if isinstance(root, TunectlConfig):
        sentences.append(CACHED)
    _print_result(args, {"purged": True, "journal_busy": not emptied}, " ".join([*sentences, LIMIT]))
    return 0


def _list_registry_folders(layout: ProjectPaths, root: LogSettings) -> set[Path]:
    """Return the folders of registries where golden sets are frozen: by ``tunectl repro``, and by the controller."""
    from tunectl.config.schema.root import TunectlConfig

    configured = root.retrain.registry if isinstance(root, TunectlConfig) else root.serve.registry
    registry = os.environ.get("TUNECTL_REGISTRY") or configured
    return {layout.releases} if "://" in registry else {layout.releases, layout.root / registry}


def _delete_unfinished(layout: ProjectPaths, root: LogSettings) -> bool:
    """Delete what killed stages have left, and caches of answers; return False while a stage or ``tunectl annotate`` runs, which writes there."""
    import shutil

    from tunectl.artifacts import lock
    from tunectl.config.schema.root import TunectlConfig
    from tunectl.preferences import annotation_store

    folders = [folder for folder in (layout.scratch, layout.state_dir / "work") if folder.is_dir()]
    if not folders:
        return True
    if isinstance(root, TunectlConfig) and lock.is_locked(layout.root / root.annotate.store / annotation_store.LOCK):
        return False
    try:
        with lock.file_lock(layout.stage_lock, "tunectl log purge"):
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
    except lock.LockTimeoutError:
        return False
    return True


def _print_result(args: argparse.Namespace, value: dict[str, Any], sentence: str) -> None:
    from tunectl.backends.system import terminal

    if args.json:
        terminal.print_json(value)
    else:
        terminal.print_line(sentence)

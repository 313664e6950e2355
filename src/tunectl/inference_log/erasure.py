"""Erase rows from snapshots: on request of a user, or after the retention time."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

from msgspec.structs import replace

from tunectl.artifacts import atomic_io
from tunectl.inference_log import erasure_ledger, snapshot
from tunectl.inference_log.log_store import ErasureResult, InferenceLog
from tunectl.inference_log.snapshot import FEEDBACK, INFERENCES, MANIFEST, SCRATCH, content_digest

LIMIT = (
    "What a model has learned already stays in its weights: train again without these rows, and release that. "
    "Backups of tunectl backup still have it, and a restore erases it again. "
    "Exports elsewhere, other backups, and annotate.store (choices on the arena page under the person's name, tasks made of their rows) "
    "are yours to delete."
)
BUSY = (
    "A reader keeps the database's journal busy, and until it ends the journal has the text that was deleted: end it (an open "
    "export, a query), then run tunectl log purge."
)


def erase_person(
    store: InferenceLog, folder: Path, hashed: str, *, by_key: bool = False, at: datetime
) -> ErasureResult:
    """Delete all data of one person now and return the counts; the hash is recorded in ``folder``, so that a restored backup erases it again.

    Args:
        store: The inference log.
        folder: Folder of the hash key's file.
        hashed: Keyed hash of the person, or of a key.
        by_key: Whether it is that of a key: then all that the key wrote is deleted.
        at: Current time.
    """
    erased = store.erase(hashed, by_key=by_key)
    erasure_ledger.record(folder, erasure_ledger.Erasure(hashed, by_key, at))
    return erased


def find_erased(store: InferenceLog, inferences: Collection[str]) -> set[str]:
    """Return the ids that were erased at a user's request, of these inferences and of the feedback on them.

    Feedback is checked separately: its author may be erased while the inference, of another person, is not.
    """
    feedback_by_inference = store.feedback_of(sorted(inferences))
    blank = {item.id for feedback in feedback_by_inference.values() for item in feedback if item.erased_at is not None}
    return blank | set(inferences).intersection(store.tombstones())


def purge(folder: Path, store: InferenceLog) -> int:
    """Delete the rows that were erased in ``store`` from every snapshot in ``folder``, and leftovers of killed processes there.

    Returns the number of changed snapshots.
    Raises  LockTimeoutError where another process writes snapshots for too long.
    """
    if not folder.is_dir():
        return 0
    with snapshot.lock_folder(folder, "purging snapshots"):
        return _purge_snapshots(folder, store)


def _purge_snapshots(folder: Path, store: InferenceLog) -> int:
    count = 0
    for snapshot_folder in sorted(path.parent for path in folder.glob(f"*/{MANIFEST}")):
        inferences, feedback = (
            list(snapshot.read_inferences(snapshot_folder)),
            list(snapshot.read_feedback(snapshot_folder)),
        )
        erased = find_erased(store, {inference.id for inference in inferences})
        remaining = [inference for inference in inferences if inference.id not in erased]
        remaining_feedback = [item for item in feedback if erased.isdisjoint((item.id, item.inference_id))]
        if len(remaining) == len(inferences) and len(remaining_feedback) == len(feedback):
            continue
        own = snapshot.read_manifest(snapshot_folder)
        with atomic_io.atomic_directory(snapshot_folder, folder / SCRATCH) as scratch:
            atomic_io.write_rows(scratch / INFERENCES, remaining)
            atomic_io.write_rows(scratch / FEEDBACK, remaining_feedback)
            before = own.purged_from or own.digest
            atomic_io.write_json(scratch / MANIFEST, replace(own, digest=content_digest(scratch), purged_from=before))
        count += 1
    return count


def prune_snapshots(folder: Path, keep: Collection[str], before: datetime) -> int:
    """Delete snapshots with inferences from before ``before``, except ids in ``keep``, which builds need; return the number deleted.

    Leftovers of killed processes in ``folder`` are deleted, too.
    Raises  LockTimeoutError where another process writes snapshots for too long.
    """
    if not folder.is_dir():
        return 0
    count = 0
    with snapshot.lock_folder(folder, "pruning snapshots"):
        for snapshot_folder in sorted(folder.iterdir()):
            if not snapshot_folder.is_dir() or snapshot_folder.name in keep or not _older(snapshot_folder, before):
                continue
            (snapshot_folder / MANIFEST).unlink(
                missing_ok=True
            )  # so that nobody takes what a kill leaves for a snapshot
            shutil.rmtree(snapshot_folder)
            count += 1
    return count


def _older(snapshot_folder: Path, before: datetime) -> bool:
    """Return whether a snapshot has inferences from before that time; an incomplete one, left by a kill, counts as having them."""
    if not (snapshot_folder / MANIFEST).is_file():
        return True
    first = next(snapshot.read_inferences(snapshot_folder), None)
    return first is not None and first.accepted_at < before

"""What is deleted from snapshots of live traffic: at somebody's request, or with time."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

from msgspec.structs import replace

from tunectl.artifacts import atomic_io
from tunectl.inference_log import snapshot
from tunectl.inference_log.log_store import InferenceLog
from tunectl.inference_log.snapshot import FEEDBACK, INFERENCES, MANIFEST, SCRATCH, content_digest


def find_erased(store: InferenceLog, inferences: Collection[str]) -> set[str]:
    """Return the inferences and feedback among these that a user asked to have erased.

    Not only inferences: who edited somebody else's answer is erased, too, and that answer is not.
    """
    said = store.feedback_of(sorted(inferences))
    blank = {one.id for opinions in said.values() for one in opinions if one.erased_at is not None}
    return blank | set(inferences).intersection(store.tombstones())


def purge(folder: Path, store: InferenceLog) -> int:
    """Delete what ``store`` has erased from every snapshot in ``folder``, and what killed processes have left there.

    Returns how many snapshots had some.
    Raises  LockTimeoutError where another process writes snapshots for too long.
    """
    if not folder.is_dir():
        return 0
    with snapshot.lock_folder(folder, "purging snapshots"):
        return _purge_snapshots(folder, store)


def _purge_snapshots(folder: Path, store: InferenceLog) -> int:
    count = 0
    for place in sorted(path.parent for path in folder.glob(f"*/{MANIFEST}")):
        inferences, said = list(snapshot.read_inferences(place)), list(snapshot.read_feedback(place))
        gone = find_erased(store, {one.id for one in inferences})
        kept = [one for one in inferences if one.id not in gone]
        heard = [one for one in said if gone.isdisjoint((one.id, one.inference_id))]
        if len(kept) == len(inferences) and len(heard) == len(said):
            continue
        own = snapshot.read_manifest(place)
        with atomic_io.atomic_directory(place, folder / SCRATCH) as fresh:
            atomic_io.write_rows(fresh / INFERENCES, kept)
            atomic_io.write_rows(fresh / FEEDBACK, heard)
            before = own.purged_from or own.digest
            atomic_io.write_json(fresh / MANIFEST, replace(own, digest=content_digest(fresh), purged_from=before))
        count += 1
    return count


def prune_snapshots(folder: Path, kept: Collection[str], before: datetime) -> int:
    """Delete snapshots with inferences from before ``before``, but those ``kept``: builds need them. Returns how many.

    What killed processes have left in ``folder`` is deleted, too.
    Raises  LockTimeoutError where another process writes snapshots for too long.
    """
    if not folder.is_dir():
        return 0
    count = 0
    with snapshot.lock_folder(folder, "pruning snapshots"):
        for place in sorted(folder.iterdir()):
            if not place.is_dir() or place.name in kept or not _older(place, before):
                continue
            (place / MANIFEST).unlink(missing_ok=True)  # so that nobody takes what a kill leaves for a snapshot
            shutil.rmtree(place)
            count += 1
    return count


def _older(place: Path, before: datetime) -> bool:
    """Return whether a snapshot reaches back that far; what a kill has left of one does."""
    if not (place / MANIFEST).is_file():
        return True
    first = next(snapshot.read_inferences(place), None)
    return first is not None and first.accepted_at < before

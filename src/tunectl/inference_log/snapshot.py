"""Frozen snapshot of live traffic with feedback: the input of a retrain run, named by the digest of its content.

    <snapshots>/<id>/inferences.jsonl   inferences with feedback, redacted as in the store
    <snapshots>/<id>/feedback.jsonl
    <snapshots>/<id>/manifest.json     Snapshot

``feedback.window`` names the snapshots for training (``inference_log/training_window.py``); deletion: ``inference_log/erasure.py``.
Snapshots of tunectl 0.1 have ``exchanges.jsonl`` and its names. They are not rewritten, because their digest is their name, and are converted when
they are read.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from tunectl.artifacts import atomic_io, private_files
from tunectl.artifacts.lock import file_lock
from tunectl.artifacts.names import ContentId
from tunectl.artifacts.records import Feedback, InferenceRecord
from tunectl.core.errors import ArtifactError
from tunectl.inference_log import version_0_1
from tunectl.inference_log.log_store import InferenceLog

INFERENCES, FEEDBACK, MANIFEST = "inferences.jsonl", "feedback.jsonl", "manifest.json"
INFERENCES_0_1: Final = "exchanges.jsonl"
"""File of the rows in a snapshot of tunectl 0.1."""
SCRATCH = "tmp"
"""Folder beside the snapshots for half-written ones, also those of killed processes. It may hold text that is deleted elsewhere."""
LOCK_TIMEOUT_SECONDS: Final = 60.0
"""Seconds to wait for another process that writes into a folder of snapshots."""
BATCH = 500
"""Inferences per query for feedback."""


class Snapshot(Struct, frozen=True, omit_defaults=True):
    """Content of a snapshot's ``manifest.json``: its id, its period and its numbers of rows."""

    id: ContentId
    """First 16 hexadecimal digits of ``digest``."""
    since: datetime
    until: datetime
    created_at: datetime
    """When it was frozen; later feedback is not in it."""
    digest: str
    """SHA-256 of both files' digests."""
    inferences: int
    feedback: int
    window: str | None = None
    """The drift window that caused it."""
    purged_from: str | None = None
    """The digest before a person's text was deleted from it; only in a snapshot's own manifest."""


def freeze(
    store: InferenceLog, folder: Path, *, since: datetime, until: datetime, at: datetime, window: str | None
) -> Snapshot:
    """Copy the inferences of [since, until) that got feedback until ``at`` into ``folder``; return the snapshot.

    Equal content gives one snapshot. ``window`` is the id of the drift window that caused it.
    Raises  InfrastructureError when database or disk fail; then nothing was added.
    """
    inferences: list[InferenceRecord] = []
    feedback: list[Feedback] = []
    batch: list[InferenceRecord] = []

    def flush() -> None:
        feedback_by_inference = store.feedback_of([item.id for item in batch])
        for item in batch:
            opinions = [opinion for opinion in feedback_by_inference.get(item.id, []) if opinion.counted_at <= at]
            if opinions:
                inferences.append(item)
                feedback.extend(opinions)
        batch.clear()

    for inference in store.inferences(since, until):
        batch.append(inference)
        if len(batch) == BATCH:
            flush()
    flush()
    return _write_snapshot(folder, inferences, feedback, since=since, until=until, at=at, window=window)


def _write_snapshot(
    folder: Path,
    inferences: Sequence[InferenceRecord],
    feedback: Sequence[Feedback],
    *,
    since: datetime,
    until: datetime,
    at: datetime,
    window: str | None,
) -> Snapshot:
    with lock_folder(folder, "freezing a snapshot"), atomic_io.scratch_folder(folder / SCRATCH) as scratch:
        atomic_io.write_rows(scratch / INFERENCES, inferences)
        atomic_io.write_rows(scratch / FEEDBACK, feedback)
        digest = content_digest(scratch)
        snapshot = Snapshot(digest[:16], since, until, at, digest, len(inferences), len(feedback), window)
        target = folder / snapshot.id
        if (target / MANIFEST).is_file():
            return snapshot  # with the time of now: what was too new when it was frozen first is not so for ever
        atomic_io.write_json(scratch / MANIFEST, snapshot)
        atomic_io.replace_directory(scratch, target)
    return snapshot


@contextmanager
def lock_folder(folder: Path, description: str) -> Iterator[None]:
    """Hold the lock of a folder of snapshots; what a killed process has left there is deleted first.

    Raises  LockTimeoutError where another process writes for too long.
    """
    private_files.make_folder(folder)
    busy = f"{folder} is being written by another process"
    lock = folder.with_name(f"{folder.name}.lock")  # outside: the folder may be tracked by content
    with file_lock(
        lock, description, busy=busy, hint="run this again when it has ended", timeout_seconds=LOCK_TIMEOUT_SECONDS
    ):
        _sweep(folder)
        yield


def _sweep(folder: Path) -> None:
    """Delete what a killed process has left. Where it was replacing a snapshot by its purged copy, that copy takes its place."""
    for old in sorted(folder.glob(f"{SCRATCH}/*.old")):
        name, dash, _ = old.name.partition("-")
        replacement, target = old.with_suffix(""), folder / name
        if dash and not target.exists() and (replacement / MANIFEST).is_file():
            replacement.replace(target)
    try:
        if (folder / SCRATCH).is_dir():
            shutil.rmtree(folder / SCRATCH)
    except OSError as error:
        raise atomic_io.write_error(folder / SCRATCH, error) from error


def read(folder: Path, frozen: Snapshot) -> tuple[list[InferenceRecord], dict[str, list[Feedback]]]:
    """Return (inferences, feedback by inference id) of a snapshot.

    Raises  ArtifactError when it is absent, or its files do not have the recorded digest.
    """
    snapshot_folder = folder / frozen.id
    if not (snapshot_folder / MANIFEST).is_file():
        raise ArtifactError(
            f"{snapshot_folder} does not exist, though the file of feedback.window names it",
            hint="it is on the machine where the retrain controller ran: copy it, or run tunectl dvc pull artifacts/feedback",
        )
    digest, own = content_digest(snapshot_folder), read_manifest(snapshot_folder)
    if digest != own.digest or frozen.digest not in (own.digest, own.purged_from):
        raise ArtifactError(
            f"{snapshot_folder} was changed: its digest is {digest[:12]}…, the file of feedback.window says {frozen.digest[:12]}…",
            hint="a snapshot must not be edited: copy it again from the machine where the retrain controller ran, or from a backup",
        )
    feedback: dict[str, list[Feedback]] = {}
    for opinion in read_feedback(snapshot_folder):
        feedback.setdefault(opinion.inference_id, []).append(opinion)
    return list(read_inferences(snapshot_folder)), feedback


def read_inferences(path: Path) -> Iterator[InferenceRecord]:
    """Yield the inferences of the snapshot in the folder ``path``.

    Raises  ArtifactError where the file is absent; DataError on a line of another shape, naming file, line and reason.
    """
    if _is_of_0_1(path):
        rows = atomic_io.read_rows(path / INFERENCES_0_1, dict[str, Any])
        yield from (msgspec.convert(version_0_1.convert_inference(row), InferenceRecord) for row in rows)
    else:
        yield from atomic_io.read_rows(path / INFERENCES, InferenceRecord)


def read_feedback(path: Path) -> Iterator[Feedback]:
    """Yield the feedback of the snapshot in the folder ``path``.

    Raises  ArtifactError where the file is absent; DataError on a line of another shape, naming file, line and reason.
    """
    if _is_of_0_1(path):
        rows = atomic_io.read_rows(path / FEEDBACK, dict[str, Any])
        yield from (msgspec.convert(version_0_1.convert_feedback(row), Feedback) for row in rows)
    else:
        yield from atomic_io.read_rows(path / FEEDBACK, Feedback)


def read_manifest(path: Path) -> Snapshot:
    """Return the manifest of the snapshot in the folder ``path``; raises ArtifactError where it is damaged."""
    if _is_of_0_1(path):
        manifest: dict[str, Any] = atomic_io.read_json(path / MANIFEST, dict[str, Any])
        return msgspec.convert(version_0_1.convert_snapshot(manifest), Snapshot)
    snapshot: Snapshot = atomic_io.read_json(path / MANIFEST, Snapshot)
    return snapshot


def _is_of_0_1(path: Path) -> bool:
    return not (path / INFERENCES).exists() and (path / INFERENCES_0_1).exists()


def content_digest(path: Path) -> str:
    """Return the SHA-256 over the present files of the snapshot in the folder ``path``."""
    names = (INFERENCES_0_1 if _is_of_0_1(path) else INFERENCES, FEEDBACK)
    return atomic_io.sha256_json([atomic_io.sha256_path(path / name) for name in names])


def feedback_out_of_quarantine(folder: Path, frozen: Snapshot, quarantine: timedelta) -> int:
    """Return the number of feedback records of a snapshot that were older than ``quarantine`` when it was frozen.

    Snapshots with equal rows that were frozen at different times can differ in it.
    """
    return sum(item.counted_at <= frozen.created_at - quarantine for item in read_feedback(folder / frozen.id))

"""A frozen span of live traffic: what a retrain is made of, named by the digest of its content.

    <snapshots>/<id>/exchanges.jsonl   those that somebody said something about, redacted as they are in the store
    <snapshots>/<id>/feedback.jsonl
    <snapshots>/<id>/manifest.json     Frozen

``live/window.json`` names those that are learned from (``inference_log/training_window.py``); what is deleted: ``inference_log/erasure.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from msgspec import Struct

from tunectl.artifacts import atomic_io
from tunectl.artifacts.names import ContentId
from tunectl.artifacts.records import Feedback, InferenceRecord
from tunectl.core.errors import ArtifactError
from tunectl.inference_log.log_store import InferenceLog

EXCHANGES, FEEDBACK, MANIFEST = "exchanges.jsonl", "feedback.jsonl", "manifest.json"
SCRATCH = "tmp"
"""Beside the snapshots: what is being written."""
BATCH = 500
"""Exchanges whose feedback is looked up at once."""


class Snapshot(Struct, frozen=True, omit_defaults=True):
    """One snapshot."""

    id: ContentId
    """First 16 hexadecimal digits of ``digest``."""
    since: datetime
    until: datetime
    at: datetime
    """When it was frozen; later opinions are not in it."""
    digest: str
    """SHA-256 of both files' digests."""
    exchanges: int
    feedback: int
    window: str | None = None
    """The drift window that asked for it."""
    purged_from: str | None = None
    """The digest before somebody's text was deleted from it; only in a snapshot's own manifest."""


def freeze(
    store: InferenceLog, folder: Path, *, since: datetime, until: datetime, at: datetime, window: str | None
) -> Snapshot:
    """Copy what was asked in [since, until) and talked about until ``at`` into ``folder``; the same content is one snapshot.

    Raises  InfrastructureError when database or disk say no; then nothing was added.
    """
    exchanges: list[InferenceRecord] = []
    said: list[Feedback] = []
    batch: list[InferenceRecord] = []

    def flush() -> None:
        found = store.feedback_of([one.id for one in batch])
        for one in batch:
            opinions = [opinion for opinion in found.get(one.id, []) if opinion.at <= at]
            if opinions:
                exchanges.append(one)
                said.extend(opinions)
        batch.clear()

    for one in store.exchanges(since, until):
        batch.append(one)
        if len(batch) == BATCH:
            flush()
    flush()
    return _write_snapshot(folder, exchanges, said, since=since, until=until, at=at, window=window)


def _write_snapshot(
    folder: Path,
    exchanges: Sequence[InferenceRecord],
    said: Sequence[Feedback],
    *,
    since: datetime,
    until: datetime,
    at: datetime,
    window: str | None,
) -> Snapshot:
    with atomic_io.scratch_folder(folder / SCRATCH) as fresh:
        atomic_io.write_rows(fresh / EXCHANGES, exchanges)
        atomic_io.write_rows(fresh / FEEDBACK, said)
        digest = content_digest(fresh)
        made = Snapshot(digest[:16], since, until, at, digest, len(exchanges), len(said), window)
        target = folder / made.id
        if (target / MANIFEST).is_file():
            return made  # with the time of now: what was too new when it was frozen first is not so for ever
        atomic_io.write_json(fresh / MANIFEST, made)
        atomic_io.replace_directory(fresh, target)
    return made


def read(folder: Path, frozen: Snapshot) -> tuple[list[InferenceRecord], dict[str, list[Feedback]]]:
    """Exchanges of a snapshot, and what was said about each.

    Raises  ArtifactError when it is not there, or is not what its name says.
    """
    place = folder / frozen.id
    if not (place / MANIFEST).is_file():
        raise ArtifactError(
            f"{place} does not exist, though live/window.json names it",
            hint="it lies on the machine where the retrain controller ran: copy it, or dvc pull artifacts/feedback",
        )
    digest = content_digest(place)
    own: Snapshot = atomic_io.read_json(place / MANIFEST, Snapshot)
    if digest != own.digest or frozen.digest not in (own.digest, own.purged_from):
        raise ArtifactError(
            f"{place} was changed: its digest is {digest[:12]}…, live/window.json says {frozen.digest[:12]}…",
            hint="restore it; a snapshot is never edited",
        )
    said: dict[str, list[Feedback]] = {}
    for opinion in atomic_io.read_rows(place / FEEDBACK, Feedback):
        said.setdefault(opinion.exchange_id, []).append(opinion)
    return list(atomic_io.read_rows(place / EXCHANGES, InferenceRecord)), said


def content_digest(place: Path) -> str:
    """The digest of a snapshot's files as they are."""
    return atomic_io.sha256_json([atomic_io.sha256_path(place / name) for name in (EXCHANGES, FEEDBACK)])


def feedback_out_of_quarantine(folder: Path, frozen: Snapshot, quarantine: timedelta) -> int:
    """Opinions of a snapshot that were out of quarantine when it was frozen: with time the same content teaches more."""
    return sum(one.at <= frozen.at - quarantine for one in atomic_io.read_rows(folder / frozen.id / FEEDBACK, Feedback))

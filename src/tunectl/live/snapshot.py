"""A frozen span of live traffic: what a retrain is made of, named by the digest of its content.

    <snapshots>/<id>/exchanges.jsonl   those that somebody said something about, redacted as they are in the store
    <snapshots>/<id>/feedback.jsonl
    <snapshots>/<id>/manifest.json     Frozen

``live/window.json`` names those that are learned from (``live/gathering.py``); what is deleted: ``live/forgetting.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from msgspec import Struct

from tunectl.artifacts import io
from tunectl.artifacts.names import ContentId
from tunectl.artifacts.records import Exchange, Feedback
from tunectl.core.errors import ArtifactError
from tunectl.live.store import LiveStore

EXCHANGES, FEEDBACK, MANIFEST = "exchanges.jsonl", "feedback.jsonl", "manifest.json"
SCRATCH = "tmp"
"""Beside the snapshots: what is being written."""
BATCH = 500
"""Exchanges whose feedback is looked up at once."""


class Frozen(Struct, frozen=True, omit_defaults=True):
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
    store: LiveStore, folder: Path, *, since: datetime, until: datetime, at: datetime, window: str | None
) -> Frozen:
    """Copy what was asked in [since, until) and talked about until ``at`` into ``folder``; the same content is one snapshot.

    Raises  EnvironmentFailure when database or disk say no; then nothing was added.
    """
    exchanges: list[Exchange] = []
    said: list[Feedback] = []
    batch: list[Exchange] = []

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
    return _written(folder, exchanges, said, since=since, until=until, at=at, window=window)


def _written(
    folder: Path,
    exchanges: Sequence[Exchange],
    said: Sequence[Feedback],
    *,
    since: datetime,
    until: datetime,
    at: datetime,
    window: str | None,
) -> Frozen:
    with io.scratch_folder(folder / SCRATCH) as fresh:
        io.write_rows(fresh / EXCHANGES, exchanges)
        io.write_rows(fresh / FEEDBACK, said)
        digest = content(fresh)
        made = Frozen(digest[:16], since, until, at, digest, len(exchanges), len(said), window)
        target = folder / made.id
        if (target / MANIFEST).is_file():
            return made  # with the time of now: what was too new when it was frozen first is not so for ever
        io.write_json(fresh / MANIFEST, made)
        io.swap_folder(fresh, target)
    return made


def read(folder: Path, frozen: Frozen) -> tuple[list[Exchange], dict[str, list[Feedback]]]:
    """Exchanges of a snapshot, and what was said about each.

    Raises  ArtifactError when it is not there, or is not what its name says.
    """
    place = folder / frozen.id
    if not (place / MANIFEST).is_file():
        raise ArtifactError(
            f"{place} does not exist, though live/window.json names it",
            hint="it lies on the machine where tunectl watch ran: copy it, or dvc pull artifacts/harvest",
        )
    digest = content(place)
    own: Frozen = io.read_json(place / MANIFEST, Frozen)
    if digest != own.digest or frozen.digest not in (own.digest, own.purged_from):
        raise ArtifactError(
            f"{place} was changed: its digest is {digest[:12]}…, live/window.json says {frozen.digest[:12]}…",
            hint="restore it; a snapshot is never edited",
        )
    said: dict[str, list[Feedback]] = {}
    for opinion in io.read_rows(place / FEEDBACK, Feedback):
        said.setdefault(opinion.exchange_id, []).append(opinion)
    return list(io.read_rows(place / EXCHANGES, Exchange)), said


def content(place: Path) -> str:
    """The digest of a snapshot's files as they are."""
    return io.digest_value([io.digest(place / name) for name in (EXCHANGES, FEEDBACK)])


def settled(folder: Path, frozen: Frozen, quarantine: timedelta) -> int:
    """Opinions of a snapshot that were out of quarantine when it was frozen: with time the same content teaches more."""
    return sum(one.at <= frozen.at - quarantine for one in io.read_rows(folder / frozen.id / FEEDBACK, Feedback))

"""A frozen span of live traffic: what a retrain is made of, named by the digest of its content.

    <snapshots>/<id>/exchanges.jsonl   those that somebody said something about, redacted as they are in the store
    <snapshots>/<id>/feedback.jsonl
    <snapshots>/<id>/manifest.json     Frozen

``live/window.json`` of the project names the snapshots that are learned from; it is committed, and holds no text.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from tunectl.artifacts import io
from tunectl.artifacts.records import Exchange, Feedback
from tunectl.config.harvest import LiveHarvest
from tunectl.core.errors import ArtifactError
from tunectl.live import harvest
from tunectl.live.harvest import Harvest
from tunectl.live.store import LiveStore

EXCHANGES, FEEDBACK, MANIFEST = "exchanges.jsonl", "feedback.jsonl", "manifest.json"
BATCH = 500
"""Exchanges whose feedback is looked up at once."""


class Frozen(Struct, frozen=True, omit_defaults=True):
    """One snapshot."""

    id: str
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


class Named(Struct, frozen=True):
    """``live/window.json``: what the next build learns from."""

    snapshots: list[Frozen] = field(default_factory=list)
    """The oldest first; the newest one is the drifted slice of the gate."""
    forgotten: list[str] = field(default_factory=list)
    """Exchanges of those snapshots that may no longer be used."""
    golden: list[str] = field(default_factory=list)
    """Digests of the questions of the golden set (``harvest.prompt_of``)."""


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
    with io.scratch_folder(folder / "tmp") as fresh:
        io.write_rows(fresh / EXCHANGES, exchanges)
        io.write_rows(fresh / FEEDBACK, said)
        digest = io.digest_value([io.digest(fresh / name) for name in (EXCHANGES, FEEDBACK)])
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
    digest = io.digest_value([io.digest(place / name) for name in (EXCHANGES, FEEDBACK)])
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


def settled(folder: Path, frozen: Frozen, quarantine: timedelta) -> int:
    """Opinions of a snapshot that were out of quarantine when it was frozen: with time the same content teaches more."""
    return sum(one.at <= frozen.at - quarantine for one in io.read_rows(folder / frozen.id / FEEDBACK, Feedback))


def purge(folder: Path, forgotten: Collection[str]) -> int:
    """Delete the text of forgotten exchanges from every snapshot; returns how many snapshots had some."""
    count = 0
    for place in sorted(path.parent for path in folder.glob(f"*/{MANIFEST}")):
        own: Frozen = io.read_json(place / MANIFEST, Frozen)
        exchanges = list(io.read_rows(place / EXCHANGES, Exchange))
        kept = [one for one in exchanges if one.id not in forgotten]
        if len(kept) == len(exchanges):
            continue
        said = [one for one in io.read_rows(place / FEEDBACK, Feedback) if one.exchange_id not in forgotten]
        with io.replacing_folder(place, folder / "tmp") as fresh:
            io.write_rows(fresh / EXCHANGES, kept)
            io.write_rows(fresh / FEEDBACK, said)
            digest = io.digest_value([io.digest(fresh / name) for name in (EXCHANGES, FEEDBACK)])
            before = own.purged_from or own.digest
            io.write_json(fresh / MANIFEST, replace(own, digest=digest, purged_from=before))
        count += 1
    return count


def named(path: Path) -> Named:
    """What ``live/window.json`` says; nothing where it is absent or null.

    Raises  ArtifactError for a damaged file.
    """
    if not path.is_file():
        return Named()
    found: Named | None = io.read_json(path, Named | None)
    return found or Named()


def _taught(
    named: Named,
    section: LiveHarvest,
    exchanges: Mapping[str, Exchange],
    said: Mapping[str, Sequence[Feedback]],
    at: datetime,
) -> Harvest:
    return harvest.gathered(
        exchanges.values(),
        said,
        harvest.rules_of(section),
        at=at,
        forgotten=set(named.forgotten),
        golden=set(named.golden),
    )


class Gathered(Struct, frozen=True):
    """What all named snapshots together teach."""

    harvest: Harvest
    exchanges: dict[str, Exchange]
    """By id, as they were answered."""
    home: dict[str, Frozen]
    """By exchange: the newest snapshot that has it."""
    fresh: frozenset[str]
    """Exchanges that teach something, and did not without the newest snapshot; it reaches back over those before it."""


def harvested(named: Named, section: LiveHarvest, root: Path = Path()) -> Gathered:
    """Lessons of all snapshots that ``named`` names; a later snapshot knows more of what was said.

    Raises  ArtifactError for one that is absent or was changed.
    """
    exchanges: dict[str, Exchange] = {}
    said: dict[str, list[Feedback]] = {}
    home: dict[str, Frozen] = {}
    found, known = Harvest([], []), Harvest([], [])
    for place, frozen in enumerate(named.snapshots, 1):
        ours, opinions = read(root / section.snapshots, frozen)
        exchanges.update({one.id: one for one in ours})
        said.update(opinions)
        home.update({one.id: frozen for one in ours})
        if place >= len(named.snapshots) - 1:
            at = max(one.at for one in named.snapshots[:place])
            known, found = found, _taught(named, section, exchanges, said, at)
    fresh = {lesson.exchange.id for lesson in found.lessons} - {lesson.exchange.id for lesson in known.lessons}
    return Gathered(found, exchanges, home, frozenset(fresh))

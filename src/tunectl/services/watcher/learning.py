"""What there is to learn from live traffic: a frozen snapshot of it, what the build is told, and whether that is enough."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from tunectl.artifacts.layout import Layout
from tunectl.config.harvest import LiveHarvest
from tunectl.config.watch import WatchData
from tunectl.live import forgetting, gathering, snapshot
from tunectl.live.gathering import Named
from tunectl.live.harvest import digest_of
from tunectl.live.snapshot import Frozen
from tunectl.release import golden
from tunectl.release.machine import Run
from tunectl.release.store import Store
from tunectl.services.watcher.hands import Found, LiveOpener
from tunectl.services.watcher.place import Place

BACK: Final = timedelta(days=30)
"""How far a snapshot reaches back behind the one before it, for opinions that came late."""
DAWN: Final = datetime(1970, 1, 1, tzinfo=UTC)


def frozen(opened: LiveOpener, layout: Layout, section: LiveHarvest, now: datetime, window: str | None) -> Frozen:
    """Freeze what was said until ``now``; ``window``: the drift window that asks for it."""
    before = gathering.named(layout.root / section.window).snapshots
    since = min(before[-1].until, now) - BACK if before else DAWN
    with opened() as live:
        return snapshot.freeze(live, layout.root / section.snapshots, since=since, until=now, at=now, window=window)


def named(run: Run, section: LiveHarvest, place: Place, store: Store, opened: LiveOpener) -> Named:
    """What the build learns from: the snapshots before, this one, without those who were forgotten meanwhile."""
    root = place.layout.root
    ours = msgspec.convert(run.facts("proposed")["snapshot"], Frozen)
    snapshots = [one for one in gathering.named(root / section.window).snapshots if one.id != ours.id]
    snapshots.append(ours)
    ids = {one.id for frozen in snapshots for one in snapshot.read(root / section.snapshots, frozen)[0]}
    with opened() as live:
        forgotten = sorted(forgetting.forgotten(live, ids))
    found = golden.newest(store.root)
    asked = golden.items(found[1], found[0]) if found else []
    return Named(snapshots, forgotten, sorted({digest_of(one.messages) for one in asked if one.messages}))


def enough(named: Named, section: LiveHarvest, wanted: WatchData, root: Path) -> Found:
    """Whether there is as much as ``wanted``, and how much there is."""
    found = gathering.harvested(named, section, root)
    lessons = [lesson for lesson in found.harvest.lessons if not lesson.held]
    fresh = sum(lesson.exchange.id in found.fresh for lesson in lessons)
    people = len({lesson.by for lesson in lessons if lesson.by is not None})
    told = {
        "lessons": len(lessons),
        "new": fresh,
        "people": people,
        "edits": sum(lesson.kind == "edit" for lesson in lessons),
        "held": len(found.harvest.lessons) - len(lessons),
        "left": found.harvest.reasons,
    }
    short = [
        f"{count} {what}, {least} are needed"
        for what, count, least in (
            ("rows to learn", len(lessons), wanted.least_lessons),
            ("new rows", fresh, wanted.least_new),
            ("people", people, wanted.least_people),
        )
        if count < least
    ]
    words = f"{len(lessons)} rows to learn, {fresh} of them new, from {people} people"
    return Found(not short, f"too little to learn: {'; '.join(short)}" if short else words, told)

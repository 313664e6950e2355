"""What the snapshots that ``live/window.json`` names teach together. That file is committed, and holds no text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from msgspec import Struct, field

from tunectl.artifacts import io
from tunectl.artifacts.records import Exchange, Feedback
from tunectl.config.harvest import LiveHarvest
from tunectl.live import harvest, lessons, snapshot
from tunectl.live.lessons import Harvest
from tunectl.live.snapshot import Frozen


class Named(Struct, frozen=True):
    """``live/window.json``: what the next build learns from."""

    snapshots: list[Frozen] = field(default_factory=list)
    """The oldest first; the newest one is the drifted slice of the gate."""
    forgotten: list[str] = field(default_factory=list)
    """Exchanges of those snapshots, and opinions about them, that may no longer be used."""
    golden: list[str] = field(default_factory=list)
    """Digests of the questions of the golden set (``harvest.prompt_of``)."""


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
    forgotten = set(named.forgotten)
    return harvest.gathered(
        exchanges.values(),
        {name: [one for one in opinions if one.id not in forgotten] for name, opinions in said.items()},
        lessons.rules_of(section),
        at=at,
        forgotten=forgotten,
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
        ours, opinions = snapshot.read(root / section.snapshots, frozen)
        exchanges.update({one.id: one for one in ours})
        said.update(opinions)
        home.update({one.id: frozen for one in ours})
        if place >= len(named.snapshots) - 1:
            at = max(one.at for one in named.snapshots[:place])
            known, found = found, _taught(named, section, exchanges, said, at)
    fresh = {lesson.exchange.id for lesson in found.lessons} - {lesson.exchange.id for lesson in known.lessons}
    return Gathered(found, exchanges, home, frozenset(fresh))

"""What a window is compared with: the champion's own answers, and the prompts of accepted windows or of the training set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf
from pathlib import Path

import msgspec

from tunectl.artifacts import io
from tunectl.artifacts.layout import Layout
from tunectl.artifacts.records import DriftWindow, Example, Message
from tunectl.evaluation.safety import refuses
from tunectl.live.store import LiveStore, Window
from tunectl.monitor import window as windows
from tunectl.monitor.signals import Row
from tunectl.privacy.mask import Masker, Memory
from tunectl.release import contract
from tunectl.release.probing import Reference


@dataclass(frozen=True, slots=True)
class Found:
    """A reference, or why there is none."""

    name: str
    """Part of the identity of windows: id of a window, of a release, or ``training``."""
    rows: tuple[Row, ...] = ()
    why: str = ""
    """Why there are no rows."""


def answers(release: Path, masker: Masker | None = None) -> Found:
    """The champion's own answers to validation prompts, recorded when it was packaged.

    ``masker`` masks them as live answers are masked before they are kept: a placeholder on one side only looks like drift.
    Raises  ArtifactError or DataError for a damaged release.
    """
    path = release / contract.REFERENCE
    if not path.is_file():
        return Found(release.name, why=f"release {release.name} holds no answers (package.reference is 0)")
    rows = enumerate(io.read_rows(path, Reference))
    return Found(release.name, tuple(_answer(place, one, _masked(one, masker)) for place, one in rows))


def _masked(one: Reference, masker: Masker | None) -> str:
    if masker is None:
        return one.answer
    memory = Memory()
    for text in (*(turn.content for turn in one.prompt), one.answer):
        memory.reserve(text)
    return masker.mask(one.answer, memory).text


def _answer(place: int, one: Reference, text: str) -> Row:
    return Row(
        id=f"reference-{place}",
        answer=text or None,
        answer_tokens=one.tokens,
        finish_reason=one.finish_reason,
        refused=not one.answer.strip() or refuses(one.answer),
        mean_logprob=one.mean_logprob,
    )


def training(layout: Layout, most: int) -> Found:
    """The training prompts, where the user declares that they are what people really ask."""
    path = layout.artifact("split") / "train.jsonl"
    if not path.is_file():
        return Found(windows.TRAINING, why=f"{path} does not exist; build it: tunectl repro --to split")
    rows = []
    for one in io.read_rows(path, Example):
        text = _asked(one.messages)
        if text:
            rows.append(Row(id=f"training-{one.id}", prompt=text))
    return Found(windows.TRAINING, _spread(rows, most))


def _spread(rows: Sequence[Row], most: int) -> tuple[Row, ...]:
    """At most so many, as far apart as they can be: files are sorted by source, and windows by the hour."""
    count = min(len(rows), most)
    return tuple(rows[place * len(rows) // count] for place in range(count))


def _asked(messages: Sequence[Message]) -> str:
    return next((one.content for one in reversed(messages) if one.role == "user"), "")


def accepted(store: LiveStore, most: int, within: float, release: str | None = None) -> Found:
    """The rows of the windows that were accepted last; what was forgotten meanwhile is not in them.

    ``within`` as in ``monitor.window.row``; ``release``: only windows in which that one answered.
    """
    named = windows.accepted([one.body for one in store.events(kind=windows.ACCEPTED)])
    if not named:
        return Found(windows.EMPTY, why="no window of prompts was accepted yet: tunectl monitor accept ID")
    known = {one.id: one for one in store.windows()}
    absent = [name for name in named if name not in known]
    if absent:
        return Found(windows.EMPTY, why=f"the accepted window {absent[0]} is not in the live store")
    named = [name for name in named if release in {None, known[name].body.get("release")}]
    if not named:
        return Found(windows.EMPTY, why=f"no accepted window has answers of release {release}")
    rows: list[Row] = []
    for name in named:
        rows += rows_of(store, known[name], within)
    return Found("+".join(named), _spread(rows, most))


def tried(store: LiveStore, release: str, most: int, within: float) -> Found:
    """What a release answered in its canary: its own answers to what people ask now, of identities drawn at random.

    Exchanges whose caller asked for it by name were drawn by nobody, and are left out.
    """
    name = f"canary-{release}"
    found = windows.chosen(store.exchanges(release=release, arm=windows.TRIED), windows.TRIED)
    drawn = [one for one in found if (one.request or {}).get("model") not in (windows.TRIED, release)][-most:]
    if not drawn:
        return Found(name, why=f"release {release} had no canary")
    said = store.feedback_of([one.id for one in drawn])
    return Found(name, tuple(windows.row(one, said.get(one.id, ()), within) for one in drawn))


def rows_of(store: LiveStore, window: Window, within: float = inf) -> list[Row]:
    """The rows of a closed window as the live store still has them."""
    wanted = window.body.get("release")
    found = windows.chosen(store.exchanges(window.since, window.until, release=wanted, arm=windows.ARM))
    said = store.feedback_of([one.id for one in found])
    return [windows.row(one, said.get(one.id, ()), within) for one in found]


def shown(store: LiveStore, name: str) -> dict[str, Row]:
    """The exchanges of a closed window by id, as the live store has them now."""
    found = next((one for one in store.windows() if one.id == name), None)
    return {} if found is None else {row.id: row for row in rows_of(store, found)}


def closed(store: LiveStore, since: datetime | None = None) -> list[DriftWindow]:
    """The windows that the monitor closed since then, oldest first; other rows of that table are not its own."""
    own = [one.body for one in store.windows(since) if "verdict" in one.body and "consecutive" in one.body]
    found = [msgspec.convert(body, DriftWindow, strict=False) for body in own]
    return sorted(found, key=lambda one: one.until)

"""What people taught in live traffic: which exchanges become lessons, and why the others do not. Pure.

A model's own words are never a lesson unless a person approved or edited them. Nobody counts for more than their share, new
opinions wait until others had time to object, and what the golden set asks is never learned. Every exchange that somebody said
something about is either a lesson or has one reason why not.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from tunectl.artifacts.records import Exchange, Feedback
from tunectl.config.harvest import LiveHarvest
from tunectl.live import export

Kind = Literal["edit", "approved"]
Reason = Literal[
    "forgotten",
    "unfinished",
    "no_chat",
    "quarantined",
    "not_approved",
    "in_golden",
    "user_cap",
    "annotator_cap",
    "annotator_share",
    "prompt_cap",
    "model_text_share",
]
REASONS: Final[dict[Reason, str]] = {
    "forgotten": "somebody asked to be forgotten",
    "unfinished": "the answer never ended",
    "no_chat": "no conversation, or nothing was answered",
    "quarantined": "what was said is too new: others may still object",
    "not_approved": "nobody approved of it, or somebody objected",
    "in_golden": "the golden set asks the same",
    "user_cap": "this person asked for more than their share of the rows",
    "annotator_cap": "this person approved of more than their share of the rows",
    "annotator_share": "this person would have more than their share of all rows",
    "prompt_cap": "the same was asked often enough",
    "model_text_share": "too much of the model's own text already",
}


class Rules(Struct, frozen=True):
    """Who and what counts for how much."""

    quarantine: timedelta
    """How long an opinion waits before it counts."""
    per_user: int
    """Rows of one person who asks."""
    per_annotator: int
    """Rows of one person who approves or edits."""
    annotator_share: float
    """Of all rows, from one person who approves or edits; 1: no bound."""
    per_prompt: int
    """Rows of one question."""
    model_text_share: float
    """Of all rows, those that the model wrote and people only approved of."""
    holdout: float
    """Of the questions, those that are kept for the gate and not learned."""


def rules_of(section: LiveHarvest) -> Rules:
    """The section of the configuration as this room wants it."""
    return Rules(
        timedelta(hours=section.quarantine_hours),
        section.per_user,
        section.per_annotator,
        section.annotator_share,
        section.per_prompt,
        section.model_text_share,
        section.holdout,
    )


class Lesson(Struct, frozen=True):
    """One exchange that is learned from, or kept for the gate."""

    exchange: Exchange
    """With the answer as people want it."""
    kind: Kind
    by: str | None
    """Keyed hash of whoever edited or approved it last."""
    prompt: str
    """Digest of the question."""
    held: bool
    """Kept for the gate."""


class Harvest(Struct, frozen=True):
    """What came of a snapshot."""

    lessons: list[Lesson]
    """The oldest first."""
    left: list[tuple[str, Reason]]
    """Exchange and why it is no lesson."""

    @property
    def reasons(self) -> dict[str, int]:
        """How many, by reason."""
        return dict(sorted(Counter(reason for _, reason in self.left).items()))


def prompt_of(exchange: Exchange) -> str:
    """See ``prompt_digest``; of what was asked."""
    asked = (exchange.request or {}).get("messages") or []
    return prompt_digest([(str(turn.get("role")), turn.get("content")) for turn in asked if isinstance(turn, dict)])


def prompt_digest(turns: Iterable[tuple[str, Any]]) -> str:
    """A digest that conversations share which ask the same, whatever case, white space and system text; (role, content) a turn."""
    plain = [[role, _folded(content)] for role, content in turns if role not in ("system", "developer")]
    return hashlib.blake2b(msgspec.json.encode(plain), digest_size=12).hexdigest()


def _folded(content: Any) -> str:
    text = content if isinstance(content, str) else msgspec.json.encode(content).decode()
    return " ".join(text.casefold().split())


def gathered(
    exchanges: Iterable[Exchange],
    said: Mapping[str, Sequence[Feedback]],
    rules: Rules,
    *,
    at: datetime,
    forgotten: Collection[str] = (),
    golden: Collection[str] = (),
) -> Harvest:
    """Lessons of all exchanges that somebody said something about.

    said       feedback by exchange, the oldest first
    at         when the snapshot was frozen; opinions younger than the quarantine do not count
    forgotten  exchanges that may not be used, though an older snapshot has them
    golden     digests of the golden set's questions (``prompt_of``)
    """
    left: list[tuple[str, Reason]] = []
    lessons: list[Lesson] = []
    for one in sorted(exchanges, key=lambda one: (one.accepted_at, one.id)):
        if not said.get(one.id):
            continue
        found = _judged(one, said[one.id], at - rules.quarantine, forgotten, golden, rules.holdout)
        if isinstance(found, Lesson):
            lessons.append(found)
        else:
            left.append((one.id, found))
    kept, capped = _capped(lessons, rules)
    return Harvest(kept, [*left, *capped])


def _judged(
    one: Exchange,
    said: Sequence[Feedback],
    until: datetime,
    forgotten: Collection[str],
    golden: Collection[str],
    holdout: float,
) -> Lesson | Reason:
    if one.id in forgotten or one.forgotten_at is not None:
        return "forgotten"
    if one.finished_at is None or one.response is None:
        return "unfinished"
    old = [opinion for opinion in said if opinion.at <= until and opinion.value is not None]
    wanted = export.approved(one, old)
    if wanted is None or export.approved(one, said) is None:  # younger opinions may object, not approve
        waits = wanted is None and len(old) < len(said) and export.approved(one, said) is not None
        return "quarantined" if waits else "not_approved"
    row, prompt = export.chat(wanted), prompt_of(one)
    if row is None or prompt in golden:
        return "no_chat" if row is None else "in_golden"
    edits = [opinion for opinion in old if opinion.kind == "edit"]
    kind: Kind = "edit" if edits and row != export.chat(one) else "approved"
    voice = (edits or [opinion for opinion in old if opinion.kind in ("thumb", "rating", "preference")])[-1]
    return Lesson(wanted, kind, voice.annotator, prompt, _place(prompt) < holdout)


def _place(prompt: str) -> float:
    """From 0 to 1, the same for one question always: what was kept for the gate once is never learned later."""
    return int.from_bytes(hashlib.blake2b(f"held {prompt}".encode(), digest_size=8).digest()) / 2**64


def _capped(lessons: Sequence[Lesson], rules: Rules) -> tuple[list[Lesson], list[tuple[str, Reason]]]:
    """Apply the caps; edits and newer rows have the right of way."""
    left: list[tuple[str, Reason]] = []
    counts: Counter[tuple[str, str | None]] = Counter()
    kept: list[Lesson] = []
    caps: tuple[tuple[str, int, Reason], ...] = (
        ("user", rules.per_user, "user_cap"),
        ("by", rules.per_annotator, "annotator_cap"),
        ("prompt", rules.per_prompt, "prompt_cap"),
    )
    for lesson in sorted(lessons, key=lambda one: (one.kind == "edit", one.exchange.accepted_at), reverse=True):
        names = {"user": lesson.exchange.user_hash, "by": lesson.by, "prompt": lesson.prompt}
        full = next((why for what, most, why in caps if counts[what, names[what]] >= most), None)
        if full is not None:
            left.append((lesson.exchange.id, full))
            continue
        for what, name in names.items():
            counts[what, name] += 1
        kept.append(lesson)
    kept = _balanced(kept, rules, left)
    return sorted(kept, key=lambda one: (one.exchange.accepted_at, one.exchange.id)), left


def _balanced(kept: list[Lesson], rules: Rules, left: list[tuple[str, Reason]]) -> list[Lesson]:
    """Take rows away, the last first, until no share is exceeded; taking one away makes the other shares larger, so: again.

    Rows without a name are one person's: nobody knows better.
    """
    people, own = Counter(lesson.by for lesson in kept), sum(lesson.kind == "approved" for lesson in kept)
    theirs: dict[str | None, list[int]] = {}
    for place, lesson in enumerate(kept):
        theirs.setdefault(lesson.by, []).append(place)
    written = [place for place, lesson in enumerate(kept) if lesson.kind == "approved"]
    there = set(range(len(kept)))
    while there:
        who, most = max(people.items(), key=lambda item: (item[1], str(item[0])))
        reason: Reason = "annotator_share"
        if rules.annotator_share < 1 and most > rules.annotator_share * len(there):
            place = _last(theirs[who], there)
        elif own > rules.model_text_share * len(there):
            place, reason = _last(written, there), "model_text_share"
        else:
            break
        there.remove(place)
        people[kept[place].by] -= 1
        own -= kept[place].kind == "approved"
        left.append((kept[place].exchange.id, reason))
    return [lesson for place, lesson in enumerate(kept) if place in there]


def _last(places: list[int], there: Collection[int]) -> int:
    """Take the last place that is still there."""
    while True:
        place = places.pop()
        if place in there:
            return place

"""The state of a registry, computed from its events: champion, canary and what a rollback restores. Pure.

A promotion pushes a release on a stack; a rollback pops it. The log is authoritative for the past, the
pointer for the present, and each can be repaired from the other after a kill.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final, Literal

from msgspec import Struct

from tunectl.artifacts.canary_state import CanaryState, Signature
from tunectl.artifacts.names import ContentId
from tunectl.artifacts.record_format import require_moment

CANARY_ACTIONS: Final = frozenset(("canary_start", "canary_stop"))
SWAPS: Final = frozenset(("promote", "rollback"))
ADDITIONS: Final = frozenset(("add", "commit"))
"""Events that move no pointer, and may follow any history."""


class ChampionPointer(Struct, frozen=True):
    """Content of ``champion.json``: the release that is served, who promoted it, and the sequence number of the change."""

    release: ContentId
    previous: ContentId | None
    """Release that a rollback restores; None: there is none."""
    promoted_at: str
    """UTC, ISO 8601."""
    author: str
    message: str
    sequence: int
    """Increases by one with every promotion and rollback."""
    action: Literal["promote", "rollback"] = "promote"
    """How it came to be champion."""
    digest: str | None = None
    """Full SHA-256 over the files of the release. None in records of tunectl 0.1."""
    signature: Signature | None = None
    """Signature by a key of role pointer."""

    def __post_init__(self) -> None:
        require_moment("promoted_at", self.promoted_at)


class ReleaseEvent(Struct, frozen=True, omit_defaults=True):
    """One line of ``events.jsonl``: one change of the registry, such as a promotion or the start of a canary."""

    action: Literal["add", "commit", "promote", "rollback", "canary_start", "canary_stop"]
    release: ContentId
    created_at: str
    """UTC, ISO 8601."""
    author: str = ""
    message: str = ""
    previous: ContentId | None = None
    """The previous champion, of a promotion or rollback."""
    sequence: int | None = None
    """Sequence of the pointer; None for events that do not move it."""
    share: float | None = None
    """Share of people who get the challenger by default; for the start of a canary."""
    salt: str | None = None
    """Salt of the assignment; for the start of a canary. Absent in the history of tunectl 0.1."""
    digest: str | None = None
    """Full SHA-256 over the files of the release; for events that move a pointer."""
    signature: Signature | None = None
    """Signature of the resulting pointer."""
    number: int | None = None
    """Number of the canary as it was signed; for its start."""
    git: str | None = None
    """Commit from which the release was made; for the event ``commit``, when the release was added before that was committed."""

    def __post_init__(self) -> None:
        require_moment("created_at", self.created_at)


def promotion_stack(entries: Sequence[ReleaseEvent]) -> list[str]:
    """Return the names of the promoted releases as a stack, the champion last; a rollback has removed the release above."""
    result: list[str] = []
    for _, _, result in _iter_stacks(entries):  # noqa: B007  (the last one)
        pass
    return result


def _iter_stacks(entries: Iterable[ReleaseEvent]) -> Iterator[tuple[int, ReleaseEvent, list[str]]]:
    """Yield the number (from 1) of each promotion and rollback, the event, and the stack after it: one list, which changes."""
    result: list[str] = []
    counts: Counter[str] = Counter()
    """How often each release is in the stack: looking for one among hundreds of thousands for each rollback takes hours."""
    for number, entry in enumerate(entries, 1):
        if entry.action not in SWAPS:
            continue
        if entry.action == "promote" and result[-1:] != [entry.release]:
            result.append(entry.release)
            counts[entry.release] += 1
        elif entry.action == "rollback" and result:
            counts[result.pop()] -= 1
            while counts[entry.release] and result[-1] != entry.release:
                counts[result.pop()] -= 1  # the rollback skipped releases that must not serve
        yield number, entry, result


def entry_of(champion: ChampionPointer, before: Sequence[ReleaseEvent]) -> ReleaseEvent:
    """Return the history event of the promotion or rollback that made ``champion`` the champion.

    ``before``: the earlier events, from which the previous champion is taken.
    """
    last = promotion_stack(before)
    return ReleaseEvent(
        champion.action,
        champion.release,
        champion.promoted_at,
        champion.author,
        champion.message,
        last[-1] if last else None,
        champion.sequence,
        digest=champion.digest,
        signature=champion.signature,
    )


def canary_entry_of(state: CanaryState) -> ReleaseEvent:
    """Return the event that records the start of a canary."""
    return ReleaseEvent(
        "canary_start",
        state.release,
        state.started_at,
        state.author,
        state.message,
        share=state.share,
        salt=state.salt,
        digest=state.digest,
        signature=state.signature,
        number=state.number,
    )


def apply_promotion(
    release: str, entries: Sequence[ReleaseEvent], *, at: str, author: str, message: str
) -> ChampionPointer:
    """Return the champion pointer after promoting ``release``; ``at`` is the time, UTC, ISO 8601."""
    last = promotion_stack(entries)
    return ChampionPointer(release, last[-1] if last else None, at, author, message, count_swaps(entries) + 1)


def apply_rollback(
    entries: Sequence[ReleaseEvent], *, at: str, author: str, message: str, skip: Collection[str] = ()
) -> ChampionPointer | None:
    """Return the pointer after a rollback; None where there is no release below the champion. ``skip``: names of releases that must not serve."""
    below = promotion_stack(entries)[:-1]
    while below and below[-1] in skip:
        below.pop()
    if not below:
        return None
    target = below[-1]
    return ChampionPointer(
        target, below[-2] if len(below) > 1 else None, at, author, message, count_swaps(entries) + 1, "rollback"
    )


def canary_started_at(entries: Sequence[ReleaseEvent]) -> str | None:
    """Return when the running canary was started (UTC, ISO 8601); None where there is none."""
    last = last_canary_event(entries)
    return last[1].created_at if last is not None and last[1].action == "canary_start" else None


def last_canary_event(entries: Sequence[ReleaseEvent]) -> tuple[int, ReleaseEvent] | None:
    """Return the newest start or stop of a canary, and its number (from 1); None where there was none."""
    result = [(number, entry) for number, entry in enumerate(entries, 1) if entry.action in CANARY_ACTIONS]
    return result[-1] if result else None


def champion_of(entries: Sequence[ReleaseEvent]) -> ChampionPointer | None:
    """Return the champion pointer that follows from a history; None before the first promotion."""
    swaps = swap_entries(entries)
    return _build_pointer(swaps[-1], len(swaps), promotion_stack(entries)) if swaps else None


def iter_champions(entries: Iterable[ReleaseEvent]) -> Iterator[tuple[int, ReleaseEvent, ChampionPointer | None]]:
    """Yield the number (from 1) of each promotion and rollback, the event, and the champion pointer that follows from the history up to it.

    In one pass: an address may hold hundreds of thousands of events.
    """
    for count, (number, entry, stack) in enumerate(_iter_stacks(entries), 1):
        yield number, entry, _build_pointer(entry, count, stack)


def _build_pointer(last: ReleaseEvent, count: int, stack: Sequence[str]) -> ChampionPointer | None:
    """Return the pointer after ``last``, the ``count``-th promotion or rollback, which left ``stack``; None where that is empty."""
    if not stack:
        return None
    return ChampionPointer(
        last.release,
        stack[-2] if len(stack) > 1 else None,
        last.created_at,
        last.author,
        last.message,
        last.sequence or count,
        "rollback" if last.action == "rollback" else "promote",
        last.digest,
        last.signature,
    )


def canary_of(entries: Sequence[ReleaseEvent], canary_state: CanaryState | None) -> CanaryState | None:
    """Return the canary that follows from a history; None where there is none.

    ``canary_state`` is needed where its start is one of tunectl 0.1, which kept no salt.
    """
    last = last_canary_event(entries)
    if last is None or last[1].action == "canary_stop":
        return None
    event = last[1]
    if event.salt is None or event.share is None:
        return canary_state if canary_state is not None and canary_state.started_at == event.created_at else None
    return CanaryState(
        event.release,
        event.share,
        event.salt,
        event.created_at,
        event.author,
        event.message,
        event.digest,
        event.signature,
        event.number,
    )


def swap_entries(entries: Sequence[ReleaseEvent]) -> list[ReleaseEvent]:
    """Return the promotions and rollbacks in a history, in order; each event names the new champion."""
    return [entry for entry in entries if entry.action in SWAPS]


def count_swaps(entries: Sequence[ReleaseEvent]) -> int:
    """Return the number of promotions and rollbacks in a history."""
    return max((entry.sequence or 0 for entry in entries), default=0)

"""Who is the champion: what happened, in order, and what follows from it. Pure.

Promoting puts a release on top of those before it; rolling back takes the top away. The log is the truth about the past, the
pointer about the present, and each can be mended from the other after a kill.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from tunectl.artifacts.names import ContentId


class ChampionPointer(Struct, frozen=True):
    """What lies in ``champion.json``."""

    release: ContentId
    previous: ContentId | None
    """Where a rollback goes; None: nowhere."""
    promoted_at: str
    """UTC, ISO 8601."""
    author: str
    message: str
    sequence: int
    """Grows by one with every swap."""
    action: Literal["promote", "rollback"] = "promote"
    """How it came to be champion."""


class ReleaseEvent(Struct, frozen=True, omit_defaults=True):
    """One line of ``events.jsonl``."""

    action: Literal["add", "promote", "rollback", "canary_start", "canary_stop"]
    release: ContentId
    created_at: str
    """UTC, ISO 8601."""
    author: str = ""
    message: str = ""
    previous: ContentId | None = None
    """The champion before, of a promotion or rollback."""
    sequence: int | None = None
    """Of the pointer; None for what does not move it."""
    share: float | None = None
    """Of the start of a canary: the share of people who get it by default."""


def promotion_stack(entries: Sequence[ReleaseEvent]) -> list[str]:
    """Releases as they stand on one another, the champion last."""
    found: list[str] = []
    for entry in entries:
        if entry.action == "promote":
            found.append(entry.release)
        elif entry.action == "rollback":
            found = found[:-1]
    return found


def entry_of(champion: ChampionPointer, before: Sequence[ReleaseEvent]) -> ReleaseEvent:
    """The line that belongs to a swap."""
    last = promotion_stack(before)
    return ReleaseEvent(
        champion.action,
        champion.release,
        champion.promoted_at,
        champion.author,
        champion.message,
        last[-1] if last else None,
        champion.sequence,
    )


def apply_promotion(
    release: str, entries: Sequence[ReleaseEvent], *, at: str, author: str, message: str
) -> ChampionPointer:
    """The pointer after promoting ``release``."""
    last = promotion_stack(entries)
    return ChampionPointer(release, last[-1] if last else None, at, author, message, count_swaps(entries) + 1)


def apply_rollback(entries: Sequence[ReleaseEvent], *, at: str, author: str, message: str) -> ChampionPointer | None:
    """The pointer after a rollback; None where nothing lies below the champion."""
    last = promotion_stack(entries)
    if len(last) < 2:
        return None
    below = last[-3] if len(last) > 2 else None
    return ChampionPointer(last[-2], below, at, author, message, count_swaps(entries) + 1, "rollback")


def current_canary(entries: Sequence[ReleaseEvent]) -> str | None:
    """The challenger that the log knows of: by when it was put up, or None where there is none."""
    last = next((entry for entry in reversed(entries) if entry.action in {"canary_start", "canary_stop"}), None)
    return last.created_at if last is not None and last.action == "canary_start" else None


def swap_entries(entries: Sequence[ReleaseEvent]) -> list[ReleaseEvent]:
    """The promotions and rollbacks among them: from each one on, its release is the champion."""
    return [entry for entry in entries if entry.action in {"promote", "rollback"}]


def count_swaps(entries: Sequence[ReleaseEvent]) -> int:
    """How many promotions and rollbacks there were."""
    return max((entry.sequence or 0 for entry in entries), default=0)

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
    by: str
    why: str
    sequence: int
    """Grows by one with every swap."""
    what: Literal["promote", "rollback"] = "promote"
    """How it came to be champion."""


class ReleaseEvent(Struct, frozen=True, omit_defaults=True):
    """One line of ``log.jsonl``."""

    what: Literal["add", "promote", "rollback", "challenge", "withdraw"]
    release: ContentId
    at: str
    """UTC, ISO 8601."""
    by: str = ""
    why: str = ""
    previous: ContentId | None = None
    """The champion before, of a promotion or rollback."""
    sequence: int | None = None
    """Of the pointer; None for what does not move it."""
    share: float | None = None
    """Of a challenge: the share of people who get it by default."""


def promotion_stack(entries: Sequence[ReleaseEvent]) -> list[str]:
    """Releases as they stand on one another, the champion last."""
    found: list[str] = []
    for entry in entries:
        if entry.what == "promote":
            found.append(entry.release)
        elif entry.what == "rollback":
            found = found[:-1]
    return found


def entry_of(champion: ChampionPointer, before: Sequence[ReleaseEvent]) -> ReleaseEvent:
    """The line that belongs to a swap."""
    last = promotion_stack(before)
    return ReleaseEvent(
        champion.what,
        champion.release,
        champion.promoted_at,
        champion.by,
        champion.why,
        last[-1] if last else None,
        champion.sequence,
    )


def apply_promotion(release: str, entries: Sequence[ReleaseEvent], *, at: str, by: str, why: str) -> ChampionPointer:
    """The pointer after promoting ``release``."""
    last = promotion_stack(entries)
    return ChampionPointer(release, last[-1] if last else None, at, by, why, count_swaps(entries) + 1)


def apply_rollback(entries: Sequence[ReleaseEvent], *, at: str, by: str, why: str) -> ChampionPointer | None:
    """The pointer after a rollback; None where nothing lies below the champion."""
    last = promotion_stack(entries)
    if len(last) < 2:
        return None
    below = last[-3] if len(last) > 2 else None
    return ChampionPointer(last[-2], below, at, by, why, count_swaps(entries) + 1, "rollback")


def current_canary(entries: Sequence[ReleaseEvent]) -> str | None:
    """The challenger that the log knows of: by when it was put up, or None where there is none."""
    last = next((entry for entry in reversed(entries) if entry.what in {"challenge", "withdraw"}), None)
    return last.at if last is not None and last.what == "challenge" else None


def swap_entries(entries: Sequence[ReleaseEvent]) -> list[ReleaseEvent]:
    """The promotions and rollbacks among them: from each one on, its release is the champion."""
    return [entry for entry in entries if entry.what in {"promote", "rollback"}]


def count_swaps(entries: Sequence[ReleaseEvent]) -> int:
    """How many promotions and rollbacks there were."""
    return max((entry.sequence or 0 for entry in entries), default=0)

"""Whether the champion's live traffic has drifted: what the newest window of the monitor says."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final, Literal

import msgspec

from tunectl.artifacts.records import DriftWindow
from tunectl.monitoring import window as windows
from tunectl.retraining import schedules
from tunectl.retraining.activities import LiveOpener

NEWS: Final = (timedelta(days=2), timedelta(days=32))
"""How far back windows are looked for, the nearest first: this is asked every few seconds, for years."""


def latest_drift_window(
    open_live: LiveOpener, champion: str, reference: Literal["live", "training"], now: datetime
) -> tuple[DriftWindow, datetime] | None:
    """Return the newest window that says anything, and when it was examined, where it says drift of the release ``champion``; else None.

    What is older than all of ``NEWS`` is no news, and what lies ahead was made by a clock that was wrong. A window that could not
    be told neither counts nor breaks the row, as for the monitor. ``reference``: what prompts are compared with.
    """
    for back in NEWS:
        with open_live() as live:
            rows = live.windows(now - back)
        for row in reversed(rows):
            result = _parse_decisive_window(row.body) if row.created_at <= now + schedules.AHEAD else None
            if result is not None:
                fits = result.verdict == "drift" and result.release == champion
                return (
                    (result, row.created_at)
                    if fits and not _has_newer_reference(open_live, result, reference)
                    else None
                )
    return None


def _parse_decisive_window(body: dict[str, Any]) -> DriftWindow | None:
    """Return a window that says something; None for others, and for rows of that table that are no windows of the monitor."""
    try:
        result = msgspec.convert(body, DriftWindow, strict=False)
    except msgspec.ValidationError:
        return None
    return result if result.verdict in {"ok", "drift"} else None


def _has_newer_reference(open_live: LiveOpener, window: DriftWindow, reference: Literal["live", "training"]) -> bool:
    """Return whether a person has accepted another reference since: to whoever says that this is the world now, it is no drift."""
    if reference == "training":
        return False
    with open_live() as live:
        events = live.events(window.until, windows.REFERENCE_SET)
    return windows.is_stale(window, [event.body for event in events])

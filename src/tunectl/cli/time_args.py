"""Parse times as users type them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from tunectl.core.errors import UsageError


def parse_time(text: str | None) -> datetime | None:
    """Return the time in ``text``: ISO 8601, or ``7d`` and ``12h`` for that long ago; UTC without a zone. None stays None.

    Raises  UsageError for anything else.
    """
    if text is None:
        return None
    ago = re.fullmatch(r"(\d{1,5})([dh])", text)
    if ago:
        return datetime.now(UTC) - timedelta(**{"d": {"days": int(ago[1])}, "h": {"hours": int(ago[1])}}[ago[2]])
    try:
        result = datetime.fromisoformat(text)
        return (result if result.tzinfo else result.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{text}: no such time", hint="write 2026-03-01, 2026-03-01T12:00+01:00, 7d or 12h") from error

"""Clear the words that drift windows keep of people's prompts, once the rows that they came from are gone."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from datetime import datetime
from itertools import accumulate
from typing import Any, Final

from tunectl.backends.storage import inference_log_schema
from tunectl.inference_log.log_store import TimeWindow

SEGMENTS: Final = "segments"
"""Key of the words (``DriftWindow.segments``). Exemplars are ids, whose texts go with their rows."""


def clear_erased(sa: Any, tables: inference_log_schema.Tables, connection: Any) -> None:
    """Clear the words of windows that may hold some of an erased inference.

    These cover one, or were examined before its erasure and end after it was accepted: the reference's words are among the words, too.
    """
    c = tables.inferences.c
    query = sa.select(c.accepted_at, c.erased_at).where(c.erased_at.is_not(None)).order_by(c.accepted_at)
    rows = connection.execute(query).all()
    if not rows:
        return
    accepted, erased = [row.accepted_at for row in rows], list(accumulate((row.erased_at for row in rows), max))

    def holds_erased(window: TimeWindow) -> bool:
        last = bisect_left(accepted, window.until) - 1
        return last >= 0 and (accepted[last] >= window.since or erased[last] >= window.created_at)

    _clear(sa, tables.windows, connection, filter(holds_erased, _with_segments(sa, tables.windows, connection)))


def clear_older(sa: Any, tables: inference_log_schema.Tables, connection: Any, before: datetime) -> None:
    """Clear the words of windows that begin before ``before``, and of those that were compared with such a window."""
    c = tables.windows.c
    old = set(connection.execute(sa.select(c.id).where(c.since < before)).scalars())
    windows = _with_segments(sa, tables.windows, connection)
    _clear(
        sa,
        tables.windows,
        connection,
        (window for window in windows if not old.isdisjoint((window.id, *window.references))),
    )


def _with_segments(sa: Any, table: Any, connection: Any) -> list[TimeWindow]:
    query = sa.select(table).where(table.c.body.contains(f'"{SEGMENTS}"'))
    return [inference_log_schema.from_row(row, TimeWindow) for row in connection.execute(query)]


def _clear(sa: Any, table: Any, connection: Any, windows: Iterable[TimeWindow]) -> None:
    for window in windows:
        body = {key: value for key, value in window.body.items() if key != SEGMENTS}
        values = inference_log_schema.to_row(TimeWindow(window.id, window.since, window.until, window.created_at, body))
        connection.execute(sa.update(table).where(table.c.id == window.id).values(body=values["body"]))

"""Print closed windows, and set the reference of prompts. Called by `tunectl monitor`."""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import DriftWindow, truncate
from tunectl.backends.storage import open_inference_log
from tunectl.core import user
from tunectl.core.errors import DataError, UsageError

if TYPE_CHECKING:
    from tunectl.config.schema.monitor import MonitorSettings

COLUMNS = ("window", "from (UTC)", "rows", "verdict", "evidence", "what")
SIGNALS = (
    "signal",
    "method",
    "rows",
    "p",
    "p of 3, 9",
    "adjusted",
    "effect",
    "floor",
    "score / threshold",
    "p before",
    "",
)
DRIFT = 3
"""Exit code where the verdict is drift."""


def print_windows(args: argparse.Namespace, closed: Sequence[DriftWindow]) -> int:
    """Print the windows that one check closed; return 3 if the newest shows drift, else 1 if one of them has the verdict error, else 0."""
    from msgspec import to_builtins

    from tunectl.backends.system import terminal

    if args.json:
        terminal.print_json(to_builtins(list(closed)))
    elif closed:
        terminal.table("", COLUMNS, [row(item) for item in closed])
    else:
        terminal.print_line("no window is due yet; tunectl monitor list shows those that are closed")
    if closed and is_drifting(closed[-1]):
        return DRIFT
    return 1 if any(item.verdict == "error" for item in closed) else 0


def is_drifting(window: DriftWindow) -> bool:
    """Return whether there is drift as of this window: by its verdict, or, where it has none, by the evidence kept from the window before."""
    return window.verdict == "drift" or (
        window.verdict in {"insufficient", "error"} and window.evidence >= window.evidence_required
    )


def row(window: DriftWindow) -> tuple[object, ...]:
    """Return a window as a table row: id, start, rows, verdict, evidence and the required evidence, reason."""
    return (
        window.id,
        f"{window.since:%m-%d %H:%M}",
        window.rows,
        window.verdict,
        f"{window.evidence:.1f} of {window.evidence_required:.1f}",
        window.reason,
    )


def list_windows(args: argparse.Namespace, settings: MonitorSettings, layout: ProjectPaths) -> int:
    """Print the newest drift windows as a table or JSON; return the exit code."""
    from msgspec import to_builtins

    from tunectl.backends.system import terminal
    from tunectl.monitoring import reference_data

    if args.json:
        from tunectl.console.read_context import ProblemList
        from tunectl.console.screens.drift import describe_drift

        terminal.print_json(to_builtins(describe_drift(settings, layout, ProblemList(), args.number)))
        return 0
    with open_inference_log.open_existing(settings.inference_log, layout) as store:
        newest = reference_data.list_closed_windows(store)[-args.number :] if args.number else []
    if newest:
        terminal.table("", COLUMNS, [row(item) for item in reversed(newest)])
    else:
        terminal.print_line("no window was closed yet; tunectl monitor closes them")
    return 0


def show(args: argparse.Namespace, names: Sequence[str], settings: MonitorSettings, layout: ProjectPaths) -> int:
    """Print one drift window: its signals, the segments that have grown, and the most different inferences; return the exit code."""
    from msgspec import to_builtins

    from tunectl.backends.system import terminal
    from tunectl.monitoring import reference_data

    with open_inference_log.open_existing(settings.inference_log, layout) as store:
        window = _find_windows(reference_data.list_closed_windows(store), names[0] if names else "")
        rows = reference_data.load_rows_by_id(store, window.id)
    if args.json:
        from tunectl.console.read_context import ProblemList
        from tunectl.console.screens.drift import describe_window

        terminal.print_json(to_builtins(describe_window(settings, layout, ProblemList(), window.id)))
        return DRIFT if is_drifting(window) else 0
    from tunectl.monitoring.drift_page import signal_rows

    terminal.print_line(
        f"{window.id}  {window.since:%Y-%m-%d %H:%M} to {window.until:%Y-%m-%d %H:%M} UTC, {window.rows} rows"
    )
    terminal.print_line(f"{window.verdict}: {window.reason}")
    terminal.table("", SIGNALS, signal_rows(window))
    if window.segments:
        cells = [(each.name, f"{each.window:.1%}", f"{each.reference:.1%}") for each in window.segments]
        terminal.table("", ("slice", "window", "reference"), cells)
    examples = [
        (name, terminal.strip_control(truncate(rows[name].prompt or rows[name].answer or "", 100)))
        for name in window.exemplars
        if name in rows
    ]
    if examples:
        terminal.table("", ("inference", "most unlike the reference"), examples)
    return DRIFT if is_drifting(window) else 0


def set_reference(
    args: argparse.Namespace, names: Sequence[str], settings: MonitorSettings, layout: ProjectPaths
) -> int:
    """Make the windows ``names`` the reference of prompts, and print their number of rows; return the exit code."""
    from tunectl.backends.system import terminal
    from tunectl.inference_log.log_store import LogEvent
    from tunectl.monitoring import reference_data
    from tunectl.monitoring import window as windows

    if not names:
        raise UsageError(
            "monitor set-reference: the ids of the windows are missing",
            hint="tunectl monitor list; tunectl monitor set-reference ID [ID ...]",
        )
    with open_inference_log.open_existing(settings.inference_log, layout) as store:
        result = [_find_windows(reference_data.list_closed_windows(store), name) for name in names]
        rows, least = sum(item.rows for item in result), settings.monitor.window.min_rows
        if rows < least:
            raise UsageError(
                f"{', '.join(item.id for item in result)}: {rows} rows together; at least {least} are needed (monitor.window.min_rows)",
                hint="name a window with more rows, or several: tunectl monitor set-reference ID ID ...",
            )
        body = windows.accept([item.id for item in result], author=user.current_user(), message=args.message)
        store.add_event(LogEvent(uuid.uuid4().hex, datetime.now(UTC), windows.REFERENCE_SET, body))
    if args.json:
        terminal.print_json(body)
    else:
        terminal.print_line(
            f"prompts are compared with {rows} rows of {', '.join(item.id for item in result)} from the next window on"
        )
    return 0


def _find_windows(closed: Sequence[DriftWindow], start: str) -> DriftWindow:
    """Return the one window whose id begins with ``start``; the newest where ``start`` is empty."""
    if not closed:
        raise DataError(
            "no window was closed yet", hint="run the monitor: tunectl monitor, or check once: tunectl monitor once"
        )
    if not start:
        return closed[-1]
    result = [item for item in closed if item.id.startswith(start)]
    if len(result) != 1:
        what = "several window ids begin with this" if result else "there is no such window"
        raise UsageError(f"{start}: {what}", hint="give an id, or more of it; tunectl monitor list has them")
    return result[0]

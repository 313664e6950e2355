"""Closed windows in the terminal, and which of them is the reference of prompts. Called by `tunectl monitor`."""

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
    """Print the windows that a look closed; 3 where they leave a drift, 1 where one of them could not be examined."""
    from msgspec import to_builtins

    from tunectl.backends.system import terminal

    if args.json:
        terminal.print_json(to_builtins(list(closed)))
    elif closed:
        terminal.table("", COLUMNS, [row(one) for one in closed])
    else:
        terminal.print_line("no window is due yet; tunectl monitor list shows those that are closed")
    if closed and is_drifting(closed[-1]):
        return DRIFT
    return 1 if any(one.verdict == "error" for one in closed) else 0


def is_drifting(one: DriftWindow) -> bool:
    """Return whether drift stands after this window, as the alert has it: one that says nothing takes back no drift before it."""
    return one.verdict == "drift" or (
        one.verdict in {"insufficient", "error"} and one.evidence >= one.evidence_required
    )


def row(one: DriftWindow) -> tuple[object, ...]:
    """Return one window in a table."""
    return (
        one.id,
        f"{one.since:%m-%d %H:%M}",
        one.rows,
        one.verdict,
        f"{one.evidence:.1f} of {one.evidence_required:.1f}",
        one.reason,
    )


def list_windows(args: argparse.Namespace, settings: MonitorSettings, layout: ProjectPaths) -> int:
    """Return the newest windows."""
    from msgspec import to_builtins

    from tunectl.backends.system import terminal
    from tunectl.monitoring import reference_data

    with open_inference_log.open_or_create(settings.inference_log, layout) as store:
        newest = reference_data.list_closed_windows(store)[-max(args.number, 0) :] if args.number > 0 else []
    if args.json:
        terminal.print_json(to_builtins(newest))
    elif newest:
        terminal.table("", COLUMNS, [row(one) for one in reversed(newest)])
    else:
        terminal.print_line("no window was closed yet; tunectl monitor closes them")
    return 0


def show(args: argparse.Namespace, names: Sequence[str], settings: MonitorSettings, layout: ProjectPaths) -> int:
    """Return one window: its signals, what there is more of, and the most different inferences."""
    from msgspec import to_builtins

    from tunectl.backends.system import terminal
    from tunectl.monitoring import reference_data

    with open_inference_log.open_or_create(settings.inference_log, layout) as store:
        one = _find_windows(reference_data.list_closed_windows(store), names[0] if names else "")
        rows = reference_data.load_rows_by_id(store, one.id)
    if args.json:
        terminal.print_json(to_builtins(one))
        return DRIFT if is_drifting(one) else 0
    from tunectl.monitoring.drift_page import signal_rows

    terminal.print_line(f"{one.id}  {one.since:%Y-%m-%d %H:%M} to {one.until:%Y-%m-%d %H:%M} UTC, {one.rows} rows")
    terminal.print_line(f"{one.verdict}: {one.reason}")
    terminal.table("", SIGNALS, signal_rows(one))
    if one.segments:
        cells = [(each.name, f"{each.window:.1%}", f"{each.reference:.1%}") for each in one.segments]
        terminal.table("", ("slice", "window", "reference"), cells)
    examples = [
        (name, terminal.strip_control(truncate(rows[name].prompt or rows[name].answer or "", 100)))
        for name in one.exemplars
        if name in rows
    ]
    if examples:
        terminal.table("", ("inference", "most unlike the reference"), examples)
    return DRIFT if is_drifting(one) else 0


def set_reference(
    args: argparse.Namespace, names: Sequence[str], settings: MonitorSettings, layout: ProjectPaths
) -> int:
    """Make windows the reference of prompts; it says which, and how many rows they have."""
    from tunectl.backends.system import terminal
    from tunectl.inference_log.log_store import LogEvent
    from tunectl.monitoring import reference_data
    from tunectl.monitoring import window as windows

    if not names:
        raise UsageError(
            "monitor set-reference: which windows?",
            hint="tunectl monitor list; tunectl monitor set-reference ID [ID ...]",
        )
    with open_inference_log.open_or_create(settings.inference_log, layout) as store:
        found = [_find_windows(reference_data.list_closed_windows(store), name) for name in names]
        rows, least = sum(one.rows for one in found), settings.monitor.window.min_rows
        if rows < least:
            raise UsageError(
                f"{', '.join(one.id for one in found)}: {rows} rows together, {least} are needed",
                hint="name a window with more rows, or several: tunectl monitor set-reference ID ID ...",
            )
        body = windows.accept([one.id for one in found], author=user.current_user(), message=args.message)
        store.add_event(LogEvent(uuid.uuid4().hex, datetime.now(UTC), windows.REFERENCE_SET, body))
    if args.json:
        terminal.print_json(body)
    else:
        terminal.print_line(
            f"prompts are compared with {rows} rows of {', '.join(one.id for one in found)} from the next window on"
        )
    return 0


def _find_windows(closed: Sequence[DriftWindow], start: str) -> DriftWindow:
    """Return the one window whose id begins with ``start``; the newest where nothing is given."""
    if not closed:
        raise DataError("no window was closed yet", hint="watch: tunectl monitor, or look once: tunectl monitor once")
    if not start:
        return closed[-1]
    found = [one for one in closed if one.id.startswith(start)]
    if len(found) != 1:
        what = "several windows begin with it" if found else "there is no such window"
        raise UsageError(f"{start}: {what}", hint="tunectl monitor list")
    return found[0]

"""Make a window of traffic the reference of prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from tunectl.artifacts.records import DriftWindow
from tunectl.backends.storage import open_inference_log
from tunectl.console.act_page import REASON, ActButton, ActPage, check_unchanged
from tunectl.console.acts.act_errors import ConflictError, require_reason
from tunectl.console.read_context import NotFoundError, ReadContext
from tunectl.core.errors import UsageError
from tunectl.inference_log.log_store import InferenceLog, LogEvent
from tunectl.monitoring import reference_data
from tunectl.monitoring import window as windows


def _find_window(log: InferenceLog | None, form: Mapping[str, str]) -> tuple[DriftWindow, str, list[str]]:
    """Return the window, the windows that are the reference now, and the ids of the events that set a reference so far."""
    closed = [] if log is None else reference_data.list_closed_windows(log)
    window = next((one for one in closed if one.id == form.get("window", "")), None)
    if log is None or window is None:
        raise NotFoundError(form.get("window", ""))
    events = log.events(kind=windows.REFERENCE_SET)
    named = windows.find_accepted_windows([event.body for event in events])
    return window, "+".join(named), [event.id for event in events]


def read(context: ReadContext, form: Mapping[str, str]) -> ActPage:
    """Return the confirmation page of making a window of traffic the reference with which the prompts of later windows are compared.

    Raises  NotFoundError for a window that was not closed.
    """
    with open_inference_log.open_if_exists(context.load_settings().inference_log, context.layout) as log:
        one, now, _ = _find_window(log, form)
    return ActPage(
        "Compare with this window from now on",
        [
            f"Prompts of later windows are compared with the {one.rows:,} rows of this one.",
            "The evidence of drift starts anew: windows against the reference before do not count any more.",
            "Choose a window of normal traffic: what it holds is called normal.",
        ],
        facts=[
            ("window", f"{one.since:%Y-%m-%d %H:%M} to {one.until:%Y-%m-%d %H:%M} UTC"),
            ("its verdict", one.verdict),
            ("reference now", now or "none"),
        ],
        fields=[REASON],
        state={"reference": now},
        scope="operate",
        buttons=[ActButton("yes", "Set the reference")],
        back=f"/drift/{one.id}",
        command=f"tunectl monitor set-reference {one.id}",
    )


def perform(context: ReadContext, form: Mapping[str, str]) -> str:
    """Log the event that makes a window the monitor's reference of prompts; return the path to go to.

    Raises  ConflictError where another window was made the reference since; UsageError for one with too few rows.
    """
    settings = context.load_settings()
    with open_inference_log.open_if_exists(settings.inference_log, context.layout) as log:
        one, now, earlier = _find_window(log, form)
        check_unchanged(form, {"reference": now})
        least = settings.monitor.window.min_rows
        if one.rows < least:
            raise UsageError(
                f"{one.id}: {one.rows} rows; at least {least} are needed (monitor.window.min_rows)",
                hint="choose a window with more rows",
            )
        body = windows.accept([one.id], author=context.visitor, message=require_reason(form))
        assert log is not None  # a window was found in it
        digest = hashlib.sha256("\n".join(sorted(earlier)).encode()).hexdigest()[:32]
        event = LogEvent(digest, context.now, windows.REFERENCE_SET, body)
        if not log.add_event(event):  # of two at once, one has this id
            hint = "load the page again, and look at it"
            raise ConflictError("another window was made the reference meanwhile", hint=hint)
    return f"/drift/{one.id}"

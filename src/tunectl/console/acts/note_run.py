"""Write a note on a run, which stands in its record and on the page Runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tunectl.artifacts import atomic_io, lock
from tunectl.console.act_page import ActButton, ActField, ActPage, check_unchanged
from tunectl.console.acts.act_errors import MAX_REASON
from tunectl.console.read_context import NotFoundError, ReadContext
from tunectl.core.errors import UsageError
from tunectl.pipeline import run_ledger
from tunectl.pipeline.run_ledger import RunRecord

LOCK: Final = ".notes.lock"
LOCK_TIMEOUT_SECONDS: Final = 2.0
"""Seconds that a note waits for another one that is being written."""


def _find_run(context: ReadContext, form: Mapping[str, str]) -> RunRecord:
    name = form.get("record", "")
    if name not in run_ledger.list_runs(context.layout):
        raise NotFoundError(name)
    return run_ledger.read_run(context.layout, name)


def read(context: ReadContext, form: Mapping[str, str]) -> ActPage:
    """Return the page with the note of the run ``form["record"]``.

    Raises  NotFoundError for an unknown run.
    """
    run = _find_run(context, form)
    return ActPage(
        "Note on a run",
        ["It stands on the page Runs, with your name, and changes nothing else. An empty one removes it."],
        facts=[("run", run.id), ("note now", f"{run.note} ({run.note_author})" if run.note else "none")],
        fields=[ActField("note", "Note", value=run.note, help="What the run was for, or what came of it.")],
        state={"before": atomic_io.sha256_json(run.note)},
        scope="operate",
        buttons=[ActButton("yes", "Keep the note")],
        back="/runs",
    )


def perform(context: ReadContext, form: Mapping[str, str]) -> str:
    """Write the note into the record of the run; return the path to go to.

    Raises  NotFoundError for an unknown run; ConflictError where somebody changed the note since; UsageError for one that is too long.
    """
    note = " ".join(form.get("note", "").split())
    if len(note) > MAX_REASON:
        raise UsageError(f"a note has {MAX_REASON} characters at most; this one has {len(note)}", hint="shorten it")
    run = _find_run(context, form)
    with lock.file_lock(context.layout.runs / LOCK, "a note on a run", timeout_seconds=LOCK_TIMEOUT_SECONDS):
        check_unchanged(form, {"before": atomic_io.sha256_json(_find_run(context, form).note)})
        run_ledger.write_note(context.layout, run.id, note, context.visitor)
    return "/runs"

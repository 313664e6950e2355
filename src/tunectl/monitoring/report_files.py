"""Files of Evidently's reports: one per window, the newest are kept. They contain texts, so purging the inference log deletes them, and pruning old ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from tunectl.artifacts import names
from tunectl.inference_log.log_store import TimeWindow


def list_reports(folder: Path) -> list[Path]:
    """Return the report files in ``folder``, newest first; other files are ignored."""
    result = [path for path in folder.glob("*.html") if names.is_content_id(path.stem)]
    return sorted(result, key=os.path.getmtime, reverse=True)


def prune(folder: Path, keep: int) -> None:
    """Delete all but the ``keep`` newest report files in ``folder``."""
    for old in list_reports(folder)[keep:]:
        old.unlink(missing_ok=True)


def prune_older(folder: Path, windows: Sequence[TimeWindow], before: datetime) -> None:
    """Delete the reports in ``folder`` that show rows from before ``before``.

    Those are the reports of ``windows`` that begin before, or were compared with such a one.
    """
    old = {window.id for window in windows if window.since < before}
    ids = {window.id for window in windows if not old.isdisjoint((window.id, *window.references))}
    for path in list_reports(folder):
        if path.stem in ids:
            path.unlink(missing_ok=True)

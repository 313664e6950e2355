"""Files of Evidently's reports: one per window, the newest are kept. They contain texts, so purging the inference log deletes them."""

from __future__ import annotations

import os
from pathlib import Path

from tunectl.artifacts import names


def list_reports(folder: Path) -> list[Path]:
    """Return the report files in ``folder``, newest first; other files are ignored."""
    result = [path for path in folder.glob("*.html") if names.is_content_id(path.stem)]
    return sorted(result, key=os.path.getmtime, reverse=True)


def prune(folder: Path, keep: int) -> None:
    """Delete all but the ``keep`` newest report files in ``folder``."""
    for old in list_reports(folder)[keep:]:
        old.unlink(missing_ok=True)

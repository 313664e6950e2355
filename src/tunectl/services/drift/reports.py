"""Evidently's reports on the disk: one a window, the newest kept. They show texts, so whoever purges the live store purges them."""

from __future__ import annotations

import os
import re
from pathlib import Path

_NAME = re.compile(r"^[0-9a-f]{16}\.html$")


def kept(folder: Path) -> list[Path]:
    """The reports that are there, newest first; other files in that folder are none of ours."""
    found = [path for path in folder.glob("*.html") if _NAME.match(path.name)]
    return sorted(found, key=os.path.getmtime, reverse=True)


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest ``keep``."""
    for old in kept(folder)[keep:]:
        old.unlink(missing_ok=True)

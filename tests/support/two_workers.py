"""How `pytest -n 2` shares out the tests: by file, and by room where a room's tests share a server or an image.

pytest-xdist's own groups do nothing with pytest 9.2 (they write a test's name where that version no longer reads it), so the scheduler
that sends a file to one worker is told what else belongs together.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

ONE_WORKER = ("container", "faults", "serving", "stack")
"""Rooms whose tests share what takes long to start."""
LONGEST_FIRST = (
    "e2e/test_loop.py",
    "faults",
    "e2e/test_pipeline_e2e.py",
    "serving",
    "container",
    "stack",
    "retraining",
    "backends",
    "stages",
    "contract",
    "conf",
)
"""What begins first, so that no worker is alone at the end: the many small files of `unit` are last."""


def place(nodeid: str) -> str:
    """What goes to one worker together: a room or a file, below ``tests/``."""
    path = PurePosixPath(nodeid.partition("::")[0])
    inside = path.relative_to("tests") if path.parts[:1] == ("tests",) else path
    return inside.parts[0] if inside.parts[0] in ONE_WORKER else str(inside)


def rank(nodeid: str) -> int:
    """Where a test stands in the order of the run."""
    where = place(nodeid)
    for number, name in enumerate(LONGEST_FIRST):
        if where == name or where.startswith(name + "/"):
            return number
    return len(LONGEST_FIRST)


def scheduler(config: Any, log: Any) -> Any:
    """For the hook ``pytest_xdist_make_scheduler``."""
    from xdist.scheduler import LoadFileScheduling

    class ByPlace(LoadFileScheduling):
        """One place, one worker."""

        def _split_scope(self, nodeid: str) -> str:
            return place(nodeid)

    return ByPlace(config, log)

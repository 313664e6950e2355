"""Backoff for releases that could not be loaded: the reason, and when the same files are tried again.

Where the files are the cause, they are not tried again until they change, as long as another release answers: each try takes all threads.
After temporary causes (network, disk, memory), and always while nothing answers, loading is tried again after increasing
pauses, so that a server gets ready without anybody's help.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tunectl.artifacts.canary_state import Variant
from tunectl.core.errors import ArtifactError, InfrastructureError, TunectlError

FIRST_PAUSE: Final = 2.0
"""First pause in seconds; each further one is twice as long."""
LONGEST_PAUSE: Final = 60.0


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """Record of a release that could not be loaded, and when the same files are tried again."""

    stamp: object
    """Stamp of its files."""
    reason: str
    lasting: bool
    """Whether the files are the cause."""
    pause: float
    """Pause in seconds."""
    again: float
    """Time of the next try; monotonic seconds."""


class LoadBackoff:
    """The last load failure of each variant; decides whether its files are tried again."""

    def __init__(self) -> None:
        self._failures: dict[Variant, LoadFailure] = {}

    def find_refusal(self, variant: Variant, stamp: object, now: float, *, idle: bool) -> str | None:
        """Return the reason of the last failed load while another try must wait; None if the files with ``stamp`` may be loaded at ``now``.

        ``now``: monotonic seconds; ``idle``: no other release answers requests, so even broken files are tried again.
        """
        state = self._failures.get(variant)
        if state is None or state.stamp != stamp:
            return None
        due = now >= state.again and (idle or not state.lasting)
        return None if due else state.reason

    def add(self, variant: Variant, stamp: object, reason: str, now: float, *, lasting: bool) -> None:
        """Record a failed load at ``now`` (monotonic seconds); ``lasting``: the files are its cause."""
        before = self._failures.get(variant)
        pause = FIRST_PAUSE if before is None else min(LONGEST_PAUSE, 2 * before.pause)
        self._failures[variant] = LoadFailure(stamp, reason, lasting, pause, now + pause)

    def forget(self, variant: Variant) -> None:
        """Forget the failure of a variant, because another release is wanted or it was loaded."""
        self._failures.pop(variant, None)


def is_permanent(error: Exception, folder: Path) -> bool:
    """Return whether ``error`` of loading the release in ``folder`` comes from its files or this installation, so that a retry would fail, too.

    False where the folder is not complete yet.
    """
    if isinstance(error, ArtifactError):
        return folder.is_dir()
    return isinstance(error, TunectlError) and not isinstance(error, InfrastructureError)


def files_stamp(folder: Path) -> object:
    """Return a value that changes with names, sizes and times of the files in ``folder``."""
    try:
        return sorted((item.name, item.stat().st_mtime_ns, item.stat().st_size) for item in folder.rglob("*"))
    except OSError:
        return None

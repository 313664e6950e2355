"""Releases that could not be loaded: why, and when the same files are tried again.

Files that are to blame are left alone until they change, as long as another release answers: each try takes all threads.
What may pass by itself (a network, a disk, memory), and everything while nothing answers, is tried again after longer and
longer pauses, so that a server gets ready without anybody's help.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tunectl.core.errors import ArtifactError, InfrastructureError, TunectlError
from tunectl.serving.routing import Variant

FIRST_PAUSE: Final = 2.0
"""Seconds; each pause is twice the one before."""
LONGEST_PAUSE: Final = 60.0


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """One that was refused."""

    stamp: object
    """Of its files."""
    reason: str
    lasting: bool
    """Whether the files are to blame."""
    pause: float
    """Seconds."""
    again: float
    """Not before; monotonic seconds."""


class LoadBackoff:
    """What each variant should have and could not get: one release at most."""

    def __init__(self) -> None:
        self._known: dict[Variant, LoadFailure] = {}

    def standing(self, variant: Variant, stamp: object, now: float, *, idle: bool) -> str | None:
        """Return why files with this stamp are not tried now; None where they are. ``idle``: nothing answers meanwhile."""
        state = self._known.get(variant)
        if state is None or state.stamp != stamp:
            return None
        due = now >= state.again and (idle or not state.lasting)
        return None if due else state.reason

    def add(self, variant: Variant, stamp: object, reason: str, now: float, *, lasting: bool) -> None:
        """Record a failed load."""
        before = self._known.get(variant)
        pause = FIRST_PAUSE if before is None else min(LONGEST_PAUSE, 2 * before.pause)
        self._known[variant] = LoadFailure(stamp, reason, lasting, pause, now + pause)

    def forget(self, variant: Variant) -> None:
        """Another release is wanted, or it was loaded."""
        self._known.pop(variant, None)


def is_permanent(error: Exception, folder: Path) -> bool:
    """Return whether the files in ``folder``, or this installation, are to blame for an error; they may not have come yet."""
    if isinstance(error, ArtifactError):
        return folder.is_dir()
    return isinstance(error, TunectlError) and not isinstance(error, InfrastructureError)


def files_stamp(folder: Path) -> object:
    """Return a stamp that changes with the files of the release."""
    try:
        return sorted((item.name, item.stat().st_mtime_ns, item.stat().st_size) for item in folder.rglob("*"))
    except OSError:
        return None

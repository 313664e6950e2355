"""Replace a registry's history by another one, with its pointers: completely or not at all, also after a kill.

All of it is written into one file first. The next change of the registry completes what that file describes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from msgspec import Struct

from tunectl.artifacts import atomic_io
from tunectl.artifacts.canary_state import CanaryState
from tunectl.artifacts.record_format import RecordFormat
from tunectl.registry import event_log, registry_formats, release_state
from tunectl.registry.release_state import ReleaseEvent

ADOPTION: Final = "adoption.json"


class AdoptedHistory(Struct, frozen=True):
    """History and canary that ``adopt`` puts in place of the present ones; kept in a file until all of it is done."""

    events: list[ReleaseEvent]
    canary: CanaryState | None


FORMAT: Final = RecordFormat("history to adopt", ())


def adopt(root: Path, history: AdoptedHistory) -> None:
    """Replace history, champion pointer and canary of the registry in folder ``root``; the caller holds its lock."""
    FORMAT.write(root / ADOPTION, history)
    finish(root)


def finish(root: Path) -> None:
    """Complete an ``adopt`` that a kill interrupted; do nothing where there is none. The caller holds the lock."""
    path = root / ADOPTION
    if not path.is_file():
        return
    history = FORMAT.read(path, AdoptedHistory)
    registry_formats.EVENT.write_lines(root / registry_formats.EVENTS, history.events)
    pointer = release_state.champion_of(history.events)
    if pointer is not None:
        registry_formats.POINTER.write(root / registry_formats.CHAMPION, pointer)
    if history.canary is not None:
        registry_formats.CANARY_STATE.write(root / registry_formats.CANARY, history.canary)
    else:
        (root / registry_formats.CANARY).unlink(missing_ok=True)
    (root / registry_formats.OLD_EVENTS).unlink(missing_ok=True)
    (root / registry_formats.OLD_CANARY).unlink(missing_ok=True)
    path.unlink()
    atomic_io.fsync_directory(root)


def adopt_old_names(root: Path) -> None:
    """Rewrite history and canary of tunectl 0.1 under the present file names, each before its old file is deleted. The caller holds the lock."""
    history, canary_path = root / registry_formats.OLD_EVENTS, root / registry_formats.OLD_CANARY
    if history.is_file():
        if not (root / registry_formats.EVENTS).is_file():
            registry_formats.EVENT.write_lines(root / registry_formats.EVENTS, event_log.read_lines(history))
        history.unlink()
    if canary_path.is_file():
        if not (root / registry_formats.CANARY).is_file():
            state = registry_formats.CANARY_STATE.read(canary_path, CanaryState)
            registry_formats.CANARY_STATE.write(root / registry_formats.CANARY, state)
        canary_path.unlink()

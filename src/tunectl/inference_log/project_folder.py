"""The folder of a project's inference log, and its migration from the folder of tunectl 0.1."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

from msgspec import Struct

from tunectl.artifacts import atomic_io, lock
from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.inference_log import training_window

OLD: Final = Path(".tunectl/live")
NEW: Final = Path(".tunectl/inference_log")
FILES: Final = {"live.sqlite": "inference_log.sqlite", "salt": "hash_key"}
"""Files that were renamed; snapshots keep the names of theirs."""
OLD_WINDOW: Final = Path("live/window.json")
NEW_WINDOW: Final = Path("inference_log/window.json")
RESTORE_MARK: Final = Path(".tunectl/restore.json")
"""Marks a project while a restore of a backup has begun and not ended."""


class RenamedPath(Struct, frozen=True):
    """A file or folder that ``move`` renamed: its path before and after, in the project."""

    old: str
    new: str


def require_new_folder(root: Path) -> None:
    """Check that the log in this project may be used, and is not that of tunectl 0.1, beside which a new, empty one would be created.

    Raises  InfrastructureError, also while a restore has not ended: what is written until then would be replaced by the backup.
    """
    if (root / RESTORE_MARK).is_file():
        raise InfrastructureError(
            f"{root / RESTORE_MARK} says that the restore of a backup has begun here and not ended",
            hint="wait for it; if it was killed, run it again: tunectl restore DIR (to give it up, move .tunectl away)",
        )
    if (root / OLD).is_dir() and _is_empty(root / NEW):
        raise InfrastructureError(
            f"{root / OLD} is the inference log of tunectl 0.1; since 0.2 it is in {NEW}",
            hint="stop the servers, the monitor and the retrain controller of 0.1, then: tunectl log migrate",
        )


def _is_empty(folder: Path) -> bool:
    """Return whether a folder is empty: a build in a worktree creates it as a target of links."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def move(root: Path, settings: Mapping[str, str]) -> list[RenamedPath]:
    """Rename the files of tunectl 0.1 to their new names; return what was renamed. Already renamed files are left alone.

    The folder itself is renamed last, and until then the log cannot be opened: after a kill the same call continues.

    Args:
        root: Folder of the project.
        settings: Name and value of the settings that may still name the old folder.

    Raises:
        UsageError: A setting names the old folder.
        InfrastructureError: A process of 0.1 still uses it, or the disk fails.
    """
    return [*_move_folder(root, settings), *_move_window(root)]


def _move_folder(root: Path, settings: Mapping[str, str]) -> Iterator[RenamedPath]:
    old, new = root / OLD, root / NEW
    if not old.is_dir() or not _is_empty(new):
        return
    wrong = [f"{name} = {value}" for name, value in settings.items() if f"{OLD}/" in value]
    if wrong:
        raise UsageError(
            f"{old} cannot be moved to {NEW} while a setting names the old folder: {', '.join(wrong)}",
            hint=f"write {NEW} there, or leave the setting out, then: tunectl log migrate",
        )
    database = old / "live.sqlite"
    busy = f"{old} is in use by a server of tunectl 0.1"
    with lock.file_lock(database.with_name("live.sqlite.lock"), "tunectl log migrate", busy=busy, hint="stop it first"):
        if database.is_file():
            _empty_journal(database)
        try:
            for name, renamed in FILES.items():
                if (old / name).exists():
                    (old / name).rename(old / renamed)
            database.with_name("live.sqlite.lock").unlink()
            atomic_io.fsync_directory(old)
            old.rename(new)
            atomic_io.fsync_directory(new.parent)
        except OSError as error:
            raise atomic_io.write_error(new, error) from error
    yield RenamedPath(str(OLD), str(NEW))


def _empty_journal(database: Path) -> None:
    """Write the journal of a SQLite file into it and delete it: the file is going to be renamed.

    Raises  InfrastructureError while another process has it open.
    """
    try:
        with closing(sqlite3.connect(database, timeout=5)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE").close()
        if any(database.with_name(f"{database.name}{end}").exists() for end in ("-wal", "-shm")):
            raise sqlite3.OperationalError("database is locked")
    except sqlite3.Error as error:
        raise InfrastructureError(
            f"{database} cannot be moved: {error}",
            hint="stop the monitor and the retrain controller that use it (a damaged file: restore it from a backup), then: tunectl log migrate",
        ) from error


def _move_window(root: Path) -> Iterator[RenamedPath]:
    old, new = root / OLD_WINDOW, root / NEW_WINDOW
    if not old.is_file() or new.exists():
        return
    try:
        window = training_window.read_window(old)
        if window is None:
            atomic_io.write_json(new, None)
        else:
            training_window.WINDOW_FORMAT.write(new, window)
        old.unlink()
        if not any(old.parent.iterdir()):
            old.parent.rmdir()
    except OSError as error:
        raise atomic_io.write_error(new, error) from error
    yield RenamedPath(str(OLD_WINDOW), str(NEW_WINDOW))

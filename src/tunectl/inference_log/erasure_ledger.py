"""Record of erasures, outside the database: restoring an older backup erases these people again.

``erasures.jsonl`` has one line per erasure: the hash of the person or the key in the log, and the time. It is beside the
hash key, and beside each backup of this host (``tunectl backup`` records where that is). The file alone reveals no name.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta, Struct

from tunectl.artifacts import atomic_io, private_files
from tunectl.artifacts.record_format import RecordFormat
from tunectl.core.errors import ArtifactError, InfrastructureError

LEDGER: Final = "erasures.jsonl"
BACKUP_FOLDERS: Final = "backup_places.json"


class Erasure(Struct, frozen=True):
    """One line of ``erasures.jsonl``: the keyed hash of an erased person or key, and when."""

    hash: Annotated[str, Meta(min_length=1, max_length=200)]
    by_key: bool
    """Whether it is the hash of a key: all that it wrote was erased."""
    erased_at: datetime
    """Data accepted later is not erased: the same person may have come again."""


class BackupFolders(Struct, frozen=True):
    """Content of the file with the folders that hold backups of this host."""

    folders: list[str]


_ERASURE: Final = RecordFormat("line of the erasures", ())
_FOLDERS: Final = RecordFormat("list of backup places", ())


def read(path: Path) -> list[Erasure]:
    """Return the erasures of a ledger file, in order; none where it is absent. A last line that a kill cut off was never confirmed.

    Raises  ArtifactError for an invalid line.
    """
    if not path.is_file():
        return []
    content, erasures = path.read_bytes(), []
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), 1):
        try:
            erasures.append(_ERASURE.decode(line, Erasure, f"{path}:{number}"))
        except atomic_io.NOT_JSON as error:
            raise ArtifactError(
                f"{path}:{number} is not the record of an erasure: {error}",
                hint="fix that line by hand; without it a restored backup would contain this person's data again",
            ) from error
    return erasures


def merge(ledgers: Iterable[Sequence[Erasure]]) -> list[Erasure]:
    """Return all erasures of several files, each once, the earliest first."""
    return sorted({one for ledger in ledgers for one in ledger}, key=lambda one: (one.erased_at, one.hash, one.by_key))


def record(folder: Path, erasure: Erasure) -> None:
    """Write an erasure beside the hash key (``folder``) and beside each backup; durable on return.

    Raises  InfrastructureError naming the folders that could not be written; in the other ones it is recorded.
    """
    wrong = []
    for ledger_folder in (folder, *list_backup_folders(folder)):
        try:
            append(ledger_folder / LEDGER, [erasure], create=ledger_folder == folder)
        except OSError as error:
            wrong.append(f"{ledger_folder / LEDGER}: {error.strerror or error}")
    if wrong:
        raise InfrastructureError(
            f"the data was erased from the log, but not recorded in every ledger, so a restored backup may contain it again: {'; '.join(wrong)}",
            hint=f"make that folder writable (is it mounted?), then erase again; if it no longer exists, remove its line from {folder / BACKUP_FOLDERS}",
        )


def append(path: Path, erasures: Sequence[Erasure], *, create: bool) -> None:
    """Append lines to a file that its owner alone may read; durable on return.

    ``create`` False: the file must exist, so that nothing is written into the empty mount point of a disk that is not mounted.
    Raises  OSError.
    """
    if create:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    private_files.restrict(path)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
    with os.fdopen(descriptor, "r+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        content = stream.read()
        complete = content.rfind(b"\n") + 1
        if complete < len(content):
            stream.truncate(complete)
        stream.seek(0, os.SEEK_END)
        stream.write(b"".join(map(_ERASURE.encode, erasures)))
        stream.flush()
        os.fsync(stream.fileno())
    atomic_io.fsync_directory(path.parent)


def list_backup_folders(folder: Path) -> list[Path]:
    """Return the known folders with backups of this host; ``folder`` is that of the hash key's file."""
    path = folder / BACKUP_FOLDERS
    return [Path(one) for one in _FOLDERS.read(path, BackupFolders).folders] if path.is_file() else []


def add_backup_folder(folder: Path, backup_folder: Path) -> None:
    """Record that the folder ``backup_folder`` contains backups, and copy the erasures so far there; ``folder`` is that of the hash key's file.

    Raises  InfrastructureError where either cannot be written.
    """
    existing, folder_here = list_backup_folders(folder), backup_folder.absolute()
    missing = [one for one in read(folder / LEDGER) if one not in set(read(folder_here / LEDGER))]
    try:
        append(folder_here / LEDGER, missing, create=True)
    except OSError as error:
        raise atomic_io.write_error(folder_here / LEDGER, error) from error
    if folder_here not in existing:
        _FOLDERS.write(folder / BACKUP_FOLDERS, BackupFolders([str(one) for one in (*existing, folder_here)]))

"""Folder of builds that were not sent to a tracker yet: one folder per build, written atomically, until it was sent."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from tunectl.artifacts import atomic_io
from tunectl.tracking.build_record import BuildRecord

RECORD = "build.json"
FILES = "files"
SENT = "sent"
MAX_BUILDS = 1000
"""Most builds that are kept for a tracker that never answers; the oldest are deleted first."""


def save(spool: Path, record: BuildRecord, files: Iterable[tuple[Path, str]]) -> Path:
    """Store a build and copies of its ``files`` (path, name at the tracker); return its folder in the spool."""
    with atomic_io.atomic_directory(spool / record.id, spool / ".tmp") as folder:
        for source, name in files:
            target = folder / FILES / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        atomic_io.write_json(folder / RECORD, record)
    for old in list_builds(spool)[:-MAX_BUILDS]:
        remove(old)
    return spool / record.id


def mark_sent(folder: Path, build: str, addresses: Mapping[str, str]) -> None:
    """Record in ``folder`` that ``build`` was sent; ``addresses`` has its page by tracker (empty: none). The oldest records are deleted."""
    atomic_io.write_json(folder / f"{build}.json", dict(addresses))
    for old in sorted(folder.glob("*.json"))[:-MAX_BUILDS]:
        old.unlink(missing_ok=True)


def list_builds(spool: Path) -> list[Path]:
    """Return the folders of the builds in the spool, oldest first."""
    return sorted(path.parent for path in spool.glob(f"*/{RECORD}"))


def load(folder: Path) -> BuildRecord:
    """Return the record of a build from its folder in the spool.

    Raises  ArtifactError where it is damaged.
    """
    record: BuildRecord = atomic_io.read_json(folder / RECORD, BuildRecord)
    return record


def remove(folder: Path) -> None:
    """Delete the folder of a build from the spool."""
    shutil.rmtree(folder, ignore_errors=True)

"""Copies of release folders, flushed to the disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tunectl.artifacts import atomic_io
from tunectl.core.errors import ArtifactError
from tunectl.registry import release_manifest


def copy_release(source: Path, target: Path) -> None:
    """Copy a tree of plain files and flush each of them and their folders to the disk."""
    for path in sorted(source.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ArtifactError(
                f"{path} is a link or a special file",
                hint="a release holds plain files only; replace it by a copy of its target",
            )
        copy_path = target / path.relative_to(source)
        if path.is_dir():
            copy_path.mkdir()
            copy_path.chmod(0o755)
        elif path.relative_to(source).as_posix() != release_manifest.NAME:
            _copy_file(path, copy_path)
    for folder in [target, *(path for path in target.rglob("*") if path.is_dir())]:
        atomic_io.fsync_directory(folder)


def _copy_file(path: Path, target: Path) -> None:
    with path.open("rb") as origin, target.open("wb") as stream:
        shutil.copyfileobj(origin, stream, 1 << 20)
        stream.flush()
        os.fsync(stream.fileno())
    target.chmod(0o644)

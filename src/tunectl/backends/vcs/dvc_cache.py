"""Find files in the project's DVC cache by their digest: DVC itself is not run, and nothing is checked out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

_DIGEST: Final = re.compile(r"([0-9a-f]{2})([0-9a-f]{30})(\.dir)?")


class _CachedEntry(Struct, frozen=True):
    md5: str
    relpath: str


def find_cached_file(root: Path, digest: str, name: str) -> Path | None:
    """Return the path in DVC's cache of the file ``name`` in the folder with DVC's ``digest``; None if the cache lacks it.

    A cache that ``dvc config cache.dir`` places elsewhere is not searched.
    """
    listing = _locate(root, digest)
    if listing is None:
        return None
    try:
        entries = msgspec.json.decode(listing.read_bytes(), type=list[_CachedEntry])
    except msgspec.MsgspecError:
        return None
    file_digest = next((entry.md5 for entry in entries if entry.relpath == name), "")
    return _locate(root, file_digest)


def _locate(root: Path, digest: str) -> Path | None:
    parts = _DIGEST.fullmatch(digest)
    if parts is None:
        return None
    path = root / ".dvc" / "cache" / "files" / "md5" / parts[1] / f"{parts[2]}{parts[3] or ''}"
    return path if path.is_file() else None

r"""Names that become part of a path. A record may hold any text: reading fails where a name is none of these.

Patterns end with ``(?!\n)$``: a ``$`` alone also matches before a final line end.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Final

from msgspec import Meta

from tunectl.core.errors import ArtifactError

ContentId = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}(?!\n)$")]
"""Id of a release, a snapshot or a window: the first hexadecimal digits of the SHA-256 of its content."""
RecordName = Annotated[str, Meta(pattern=r"^[\w:-][\w.:-]{0,119}(?!\n)$")]
"""Name of a record with its own file, or the beginning of that name: an experiment, the key of a retrain."""
_CONTENT_ID: Final = re.compile(r"[0-9a-f]{16}")


def is_content_id(text: str) -> bool:
    """Return whether ``text`` has the form of a content id, so that it may name a release, a snapshot or a window."""
    return _CONTENT_ID.fullmatch(text) is not None


def join_content_id(folder: Path, name: str) -> Path:
    """Return the path of ``name`` inside ``folder``, after checking that it cannot lead out of it.

    Raises  ArtifactError for a name that would lead out of ``folder`` (such as ``..``).
    """
    if not is_content_id(name):
        raise ArtifactError(
            f"{name[:80]!r} names nothing in {folder}: names there have 16 hexadecimal digits",
            hint="the file that holds this name, such as champion.json, was changed by hand; restore it from a backup",
        )
    return folder / name


def refuse_outside(name: str, location: str) -> None:
    """Check that a file's ``name`` in a manifest at ``location`` stays in the folder that it lists, and is one line.

    Raises  ArtifactError where it could lead out of it, or holds a line end.
    """
    path = PurePosixPath(name)
    refuse_line_end(name, location)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise ArtifactError(
            f"a manifest of {location} names the file {name[:200]!r}, which is outside its release",
            hint="restore that manifest from a backup",
        )


def refuse_line_end(name: str, location: str) -> None:
    r"""Check that the name of a file in ``location`` is one line: with ``"a DIGEST\nb"`` two releases would have one digest.

    Raises  ArtifactError.
    """
    if "\n" in name:
        raise ArtifactError(
            f"{location} names the file {name[:200]!r}: a line end cannot stand in the name of a file of a release",
            hint="rename that file; in a store, restore the release from a backup",
        )

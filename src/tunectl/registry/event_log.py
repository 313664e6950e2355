"""Event log of the registry: one JSON line per event, each flushed to the disk before it counts."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from tunectl.artifacts import atomic_io
from tunectl.core.errors import ArtifactError
from tunectl.registry import registry_formats
from tunectl.registry.release_state import ReleaseEvent


def current_moment() -> str:
    """Return the current time in the format of a registry's records: UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def parse_lines(content: bytes, location: str) -> list[ReleaseEvent]:
    """Return the complete lines of a log at ``location``; one that was cut off by a kill is left out.

    Raises  ArtifactError for an invalid line.
    """
    result = []
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), 1):
        try:
            result.append(registry_formats.EVENT.decode(line, ReleaseEvent, f"{location}:{number}"))
        except atomic_io.NOT_JSON as error:
            raise ArtifactError(
                f"{location}:{number} is not the expected JSON: {error}",
                hint="the history must not be edited: restore it from a backup",
            ) from error
    return result


def read_lines(path: Path, *, mend: bool = False) -> list[ReleaseEvent]:
    """Return the complete lines of a file, none where it is absent; ``mend`` removes a last one that a kill left unfinished.

    Raises  ArtifactError for an invalid line.
    """
    if not path.is_file():
        return []
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if mend and end < len(content):
        with path.open("r+b") as stream:
            stream.truncate(end)
            os.fsync(stream.fileno())
    return parse_lines(content, str(path))


def append(path: Path, entry: ReleaseEvent) -> None:
    """Append an event to the log file; it is on the disk on return.

    Raises  InfrastructureError where the disk is full or not writable.
    """
    try:
        with path.open("ab") as stream:
            stream.write(registry_formats.EVENT.encode(entry))
            stream.flush()
            os.fsync(stream.fileno())
        atomic_io.fsync_directory(path.parent)
    except OSError as error:
        raise atomic_io.write_error(path, error) from error

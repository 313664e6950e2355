"""Versions of records on disk: a record of an earlier version is upgraded when it is read, one of a later version is refused.

A record is a JSON object (a file, or a line of one) with its version under ``version``. Records of tunectl 0.1 have none: they
are version 1. Records are always written in the newest version, atomically, so a file is upgraded when its record
changes. An upgrade is a pure function from the object of one version to that of the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from tunectl.artifacts import atomic_io
from tunectl.core.errors import ArtifactError

T = TypeVar("T")
Upgrade = Callable[[dict[str, Any]], dict[str, Any]]
"""From the object of one version to that of the next; it does not change its argument."""


class NewerRecordError(ArtifactError):
    """Raised for a record that a later version of tunectl wrote."""


class RecordFormat(Struct, frozen=True):
    """Reader and writer of one kind of versioned record: upgrades earlier versions when it reads, writes the newest."""

    kind: str
    """Name of the record for people, for example ``champion pointer``."""
    upgrades: tuple[Upgrade, ...]
    """The first one upgrades version 1 to 2, and so on."""
    key: str = "version"
    """Key of the version: another one where a field of the record has that name."""

    @property
    def version(self) -> int:
        """Newest version, in which records are written."""
        return len(self.upgrades) + 1

    def decode(self, content: bytes | str, shape: type[T], location: str) -> T:
        """Return one record of any version up to the newest, upgraded and converted to the type ``shape``.

        Args:
            content: one JSON object.
            shape: the type of the newest version.
            location: the file, with the line where it has several; for errors.

        Raises:
            NewerRecordError: a later tunectl wrote it.
            msgspec.MsgspecError, UnicodeDecodeError: it is no such record (``atomic_io.NOT_JSON``).
        """
        return self.convert(msgspec.json.decode(content), shape, location)

    def convert(self, record: Any, shape: type[T], location: str) -> T:
        """Return a decoded object upgraded and converted to the type ``shape``; ``location`` and errors are those of ``decode``."""
        if isinstance(record, dict):
            record = self._upgrade(record, location)
        return msgspec.convert(record, shape)

    def _upgrade(self, record: dict[str, Any], location: str) -> dict[str, Any]:
        version = record.get(self.key, 1)
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise msgspec.ValidationError(f"{repr(version)[:80]} must be a whole number, 1 or more - at `$.{self.key}`")
        if version > self.version:
            raise NewerRecordError(
                f"{location} is a {self.kind} of version {version}; this tunectl reads versions up to {self.version}",
                hint="a newer tunectl wrote it: install that version here",
            )
        record = {name: value for name, value in record.items() if name != self.key}
        for upgrade in self.upgrades[version - 1 :]:
            record = upgrade(record)
        return record

    def read(self, path: Path, shape: type[T]) -> T:
        """Return the record that a file holds, upgraded and converted to the type ``shape``.

        Raises:
            ArtifactError: the file is absent, or holds no such record; NewerRecordError for one of a later tunectl.
        """
        try:
            return self.decode(path.read_bytes(), shape, str(path))
        except FileNotFoundError as error:
            raise ArtifactError(f"{path} does not exist", hint="restore it from a backup") from error
        except atomic_io.NOT_JSON as error:
            raise ArtifactError(
                f"{path} is not the expected JSON: {error}",
                hint="it was changed by hand or cut off; restore it from a backup",
            ) from error

    def to_plain(self, record: Any) -> dict[str, Any]:
        """Return a record as a plain object, with its version."""
        return {self.key: self.version, **msgspec.to_builtins(record)}

    def encode(self, record: Any) -> bytes:
        """Return a record as one line of JSON, with its version and a line end."""
        return msgspec.json.encode(self.to_plain(record)) + b"\n"

    def write(self, path: Path, record: Any, mode: int = 0o644) -> None:
        """Write a file that holds one record, atomically, with the permissions ``mode``."""
        atomic_io.write_json(path, self.to_plain(record), mode)

    def write_lines(self, path: Path, records: Iterable[Any], mode: int = 0o644) -> None:
        """Write a file that holds one record per line, atomically, with the permissions ``mode``."""
        atomic_io.write_bytes(path, b"".join(map(self.encode, records)), mode)


def rename_keys(record: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return ``record`` with keys renamed by ``names`` (old to new); absent keys stay absent."""
    return {names.get(key, key): value for key, value in record.items()}


def find_existing(path: Path, *older: str) -> Path:
    """Return ``path`` if it exists, else the first existing file among ``older`` names in the same folder, else ``path``."""
    if not path.exists():
        for name in older:
            if (path.parent / name).exists():
                return path.parent / name
    return path


def require_moment(field: str, text: str) -> None:
    """Check that a time in a record can be read and compared: ISO 8601 with its zone, in a year from 2000 to 2999.

    Raises  ValueError, which msgspec reports with the record that it decodes.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or at.year not in range(2000, 3000):
        raise ValueError(f"{field} is {text[:40]!r}; must be a time with its zone, such as 2026-01-31T12:00:00+00:00")

"""Objects behind an address (``s3://bucket/folder``, ``gs://``, ``file://``), through fsspec."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tunectl.artifacts import atomic_io
from tunectl.core.errors import ArtifactError, InfrastructureError, MissingExtraError, UsageError
from tunectl.core.optional import import_optional
from tunectl.core.url_credentials import hide_credentials
from tunectl.registry.protocols import MAX_RECORD_BYTES

DRIVERS: Final = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
"""The driver package of each kind of address; it finds keys and regions in its usual places (environment, files)."""

PART_BYTES: Final = 8 << 20
"""Bytes of an object that are fetched at once."""
_CHECK: Final = "check who may write to that address, and restore the object from a backup"


class FsspecObjectStore:
    """Reads and writes the registry's objects at an fsspec address (a ``registry.protocols.ObjectStore``)."""

    def __init__(self, address: str) -> None:
        """Open the address; raise ``UsageError`` for an unknown kind, ``MissingExtraError`` where its package is missing."""
        core = import_optional("fsspec.core", extra="serve")
        self.address = hide_credentials(address.rstrip("/"))
        kind = address.partition("://")[0]
        self._local = kind in {"file", "local"}
        self._exclusive = {"overwrite": False} if kind in {"az", "abfs"} else {}
        """Option that Azure's driver needs beside fsspec's ``mode`` so that nothing is replaced."""
        try:
            self._files, self._root = core.url_to_fs(address.rstrip("/"), use_listings_cache=False)
            if kind == "s3":
                self._files.retries = 1  # botocore retries (AWS_MAX_ATTEMPTS); s3fs would do all of that five times
        except ImportError as error:
            name = DRIVERS.get(kind, str(error))
            raise MissingExtraError(f"{self.address} needs the package {name}", hint=f"pip install {name}") from error
        except ValueError as error:
            raise UsageError(
                f"{self.address}: {hide_credentials(str(error))}",
                hint="give a folder, or an address such as s3://BUCKET/releases",
            ) from error

    def read(self, name: str, limit: int = MAX_RECORD_BYTES) -> bytes | None:
        """Return the content of object ``name``; None if there is none.

        Raises  ArtifactError for an object of more than ``limit`` bytes.
        """
        try:
            with self._translate_errors(name):
                content: bytes = self._files.cat_file(self._path(name), start=0, end=limit + 1)
        except FileNotFoundError:
            return None
        if len(content) > limit:
            raise ArtifactError(
                f"{self.address}/{name} has more than {limit:,} bytes, too large for a tunectl record", hint=_CHECK
            )
        return content

    def names(self, folder: str) -> list[str]:
        """Return the names directly below ``folder``; empty if it does not exist."""
        try:
            with self._translate_errors(folder):
                self._files.invalidate_cache()
                return [
                    path.rstrip("/").rpartition("/")[2] for path in self._files.ls(self._path(folder), detail=False)
                ]
        except FileNotFoundError:
            return []

    def write(self, name: str, content: bytes) -> None:
        """Create or replace object ``name``."""
        with self._translate_errors(name):
            self._files.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(self._path(name), content)

    def create(self, name: str, content: bytes) -> bool:
        """Create object ``name`` atomically; return False if it exists, which leaves it unchanged.

        The store decides who is first: ``If-None-Match: *`` on S3, a generation of 0 on Google's, a link in a folder.
        """
        if self._local:
            return atomic_io.create_exclusive(Path(self._path(name)), content)
        try:
            with self._translate_errors(name):
                self._files.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)
            with self._translate_errors(name, FileExistsError):
                self._files.pipe_file(self._path(name), content, mode="create", **self._exclusive)
        except FileExistsError:
            return False
        except InfrastructureError:
            if self._exists(name):  # drivers raise different errors for an existing object
                return False
            raise
        return True

    def send(self, path: Path, name: str) -> None:
        """Upload the file ``path`` as object ``name``."""
        with self._translate_errors(name):
            self._files.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)
            self._files.put_file(str(path), self._path(name))

    def fetch(self, name: str, path: Path, limit: int) -> int:
        """Download object ``name`` to the file ``path``; returns its size in bytes.

        Raises  ArtifactError for more than ``limit`` bytes, as soon as they are exceeded; ``path`` is then removed.
        """
        total = 0
        with path.open("wb") as target:
            for part in self._read_parts(name):
                total += len(part)
                if total > limit:
                    path.unlink()
                    raise ArtifactError(
                        f"{self.address}/{name} has more than the {limit:,} bytes that are declared", hint=_CHECK
                    )
                target.write(part)
        return total

    def _read_parts(self, name: str) -> Iterator[bytes]:
        with self._translate_errors(name):
            stream = self._files.open(self._path(name), "rb", block_size=PART_BYTES)
        with stream:
            while True:
                with self._translate_errors(name):
                    part: bytes = stream.read(PART_BYTES)
                if not part:
                    return
                yield part

    def _exists(self, name: str) -> bool:
        try:
            with self._translate_errors(name):
                self._files.info(self._path(name))
        except FileNotFoundError:
            return False
        return True

    def remove(self, name: str) -> None:
        """Delete object ``name`` if it exists."""
        if self._exists(name):
            with self._translate_errors(name):
                self._files.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _translate_errors(self, name: str, *expected: type[OSError]) -> Iterator[None]:
        """Turn whatever a driver raises into our error; FileNotFoundError for an absent object and errors in ``expected`` are passed on."""
        try:
            yield
        except Exception as error:
            if isinstance(error, (FileNotFoundError, *expected)):
                raise
            lines: Any = str(error).strip().splitlines() or [type(error).__name__]
            raise InfrastructureError(
                f"{self.address}/{name}: {hide_credentials(lines[0])[:300]}",
                hint="check the address, the network, and that the credentials may read and write there",
            ) from error

"""Read files, and write them atomically: temporary name, fsync, rename."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import msgspec

from tunectl.core.errors import ArtifactError, DataError, InfrastructureError

T = TypeVar("T")
NOT_JSON: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are not JSON, are nested too deeply, or have another shape; two of them are not msgspec's."""


@contextmanager
def atomic_open(path: Path, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """Open a file for the block and yield its stream; the file appears at ``path``, with the permissions ``mode``, only if the block succeeds.

    It keeps owner and group of a file that it replaces, as far as this account may set them: root may write the keys of a server.
    Raises  InfrastructureError when the folder cannot be written or the disk is full.
    """
    descriptor, temporary = _make_temporary(path)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        _keep_owner(path, temporary)
        temporary.chmod(mode)
        temporary.replace(path)
        fsync_directory(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _keep_owner(path: Path, temporary: Path) -> None:
    """Give ``temporary`` the owner and group of the file at ``path``, or the group alone; where this account may do neither, nothing."""
    if not path.exists():
        return
    former, own = path.stat(), temporary.stat()
    for owner in (former.st_uid, own.st_uid):
        if (owner, former.st_gid) == (own.st_uid, own.st_gid):
            return
        with suppress(PermissionError):
            os.chown(temporary, owner, former.st_gid)
            return


def write_error(path: Path, error: OSError) -> InfrastructureError:
    """Return the error for a failed write, with its cause (no space, no permission) and a hint."""
    reason = error.strerror or str(error)
    return InfrastructureError(
        f"cannot write {path}: {reason}", hint="check the free space and the permissions of that folder, then run again"
    )


def fsync_directory(folder: Path) -> None:
    """Make renames inside ``folder`` durable (fsync)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write ``content`` to ``path`` atomically, with the permissions ``mode``."""
    with atomic_open(path, mode) as stream:
        stream.write(content)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text to ``path`` atomically."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: Any, mode: int = 0o644) -> None:
    """Write ``value`` as indented JSON with sorted keys, so that equal values give equal files; ``mode``: permissions."""
    plain = msgspec.to_builtins(value, order="sorted")
    write_bytes(path, msgspec.json.format(msgspec.json.encode(plain, order="sorted"), indent=2) + b"\n", mode)


def read_json(path: Path, shape: type[T] | Any = Any) -> T:
    """Return the content of one JSON file, validated and converted to the type ``shape``.

    Raises  ArtifactError when the file is absent, is not JSON, or has another shape; the message names the path.
    """
    try:
        value: T = msgspec.json.decode(path.read_bytes(), type=shape)
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} does not exist", hint="run: tunectl repro") from error
    except NOT_JSON as error:
        raise ArtifactError(
            f"{path} is not the expected JSON: {error}",
            hint="it was changed by hand or cut off; delete it and run: tunectl repro",
        ) from error
    return value


def write_rows(path: Path, rows: Iterable[Any], mode: int = 0o644) -> int:
    """Write one line of JSON per row atomically, with the permissions ``mode``; return the number of rows."""
    encoder = msgspec.json.Encoder()
    count = 0
    with atomic_open(path, mode) as stream:
        for row in rows:
            stream.write(encoder.encode(row) + b"\n")
            count += 1
    return count


def read_rows(path: Path, shape: type[T]) -> Iterator[T]:
    """Yield the rows of a JSON-lines file, each validated and converted to the type ``shape``.

    Raises  ArtifactError when the file is absent; DataError on a line of another shape, naming file, line and reason.
    """
    decoder = msgspec.json.Decoder(shape)
    try:
        stream = path.open("rb")
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} does not exist", hint="run: tunectl repro") from error
    with stream:
        for number, line in enumerate(stream, 1):
            try:
                yield decoder.decode(line)
            except NOT_JSON as error:
                raise DataError(
                    f"{path}:{number} is not the expected JSON: {error}",
                    hint="that line was changed by hand or cut off: restore the file, or build it again: tunectl repro",
                ) from error


def sha256_path(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, or of a folder's relative names and contents."""
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    total = hashlib.sha256()
    for name in sorted(item for item in path.rglob("*") if item.is_file()):
        total.update(f"{name.relative_to(path).as_posix()}\0{sha256_path(name)}\n".encode())
    return total.hexdigest()


def sha256_json(value: Any) -> str:
    """Return the hexadecimal SHA-256 of a plain value's sorted JSON."""
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


@contextmanager
def atomic_directory(target: Path, scratch: Path, *, finish: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Yield a new folder under ``scratch`` that replaces ``target`` only when the block ends without an error.

    ``finish`` runs last inside the new folder, for example to write its manifest. What was at ``target`` before is
    removed after the swap; ``scratch`` must be on the same file system.
    """
    with scratch_folder(scratch, prefix=f"{target.name}-") as folder:
        yield folder
        if finish is not None:
            finish(folder)
        replace_directory(folder, target)


@contextmanager
def scratch_folder(scratch: Path, *, prefix: str = "") -> Iterator[Path]:
    """Yield a new folder under ``scratch`` that is deleted when the block ends, unless it was moved away."""
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=scratch))
        folder.chmod(0o755)
    except OSError as error:
        raise write_error(scratch, error) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def replace_directory(folder: Path, target: Path) -> None:
    """Move the folder ``folder`` to ``target``, replacing what was there."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        old = folder.with_name(folder.name + ".old")
        if target.exists():
            target.replace(old)
        folder.replace(target)
        fsync_directory(target.parent)
    except OSError as error:
        raise write_error(target, error) from error
    shutil.rmtree(old, ignore_errors=True)


def _make_temporary(path: Path) -> tuple[int, Path]:
    """Return a new file beside ``path``, open, and where it is."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    return descriptor, Path(name)


def create_exclusive(path: Path, content: bytes, *, mode: int = 0o644) -> bool:
    """Create a file with all of its content at once and return True; False where one of that name exists, which stays. ``mode``: permissions.

    Raises  InfrastructureError where it cannot be made.
    """
    descriptor, scratch = _make_temporary(path)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.chmod(mode)
        os.link(scratch, path)  # unlike a rename this never takes another one's place
        fsync_directory(path.parent)
    except FileExistsError:
        return False
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        scratch.unlink(missing_ok=True)
    return True

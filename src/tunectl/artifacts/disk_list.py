"""A list whose rows are in an unnamed file, for data larger than memory."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Generic, Protocol, TypeVar, overload

import msgspec

from tunectl.core.errors import InfrastructureError

T = TypeVar("T", bound=msgspec.Struct)
U = TypeVar("U")
WRITE_BYTES = 2**20  # rows wait in memory until they are this many bytes: few and large writes
READ_ROWS = 1024  # rows that iterating reads at once


class RowList(Protocol[U]):
    """Protocol of a list to append to: a plain list, or a ``DiskList`` for data larger than memory."""

    def append(self, row: U, /) -> object:
        """Add a row at the end; the returned value is not used."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def __iter__(self) -> Iterator[U]:
        """Yield all rows in order."""


class DiskList(Sequence[T], Generic[T]):
    """Rows of one or more shapes, written one after the other and read back by number, from any thread.

    A row takes 9 bytes of memory. The file has no name, so it is gone with the process, however that ends.
    """

    def __init__(self, folder: Path, *shapes: type[T]) -> None:
        self.folder = folder
        self._shapes = {shape: number for number, shape in enumerate(shapes)}
        self._encoder = msgspec.json.Encoder(enc_hook=str)
        self._decoders = [msgspec.json.Decoder(shape) for shape in shapes]
        self.kinds = array("B")
        """For each row the number of its shape."""
        self._bounds = array("Q", [0])
        self._waiting = bytearray()
        descriptor, name = tempfile.mkstemp(dir=folder)
        Path(name).unlink()
        self._descriptor = descriptor
        self._close = weakref.finalize(self, os.close, descriptor)

    def append(self, row: T, /) -> int:
        """Write a row at the end and return its index, from 0.

        Raises  InfrastructureError where the disk is full.
        """
        line = self._encoder.encode(row)
        self.kinds.append(self._shapes[type(row)])
        self._bounds.append(self._bounds[-1] + len(line))
        self._waiting += line
        if len(self._waiting) >= WRITE_BYTES:
            self._flush()
        return len(self.kinds) - 1

    def extend(self, rows: Iterable[T]) -> None:
        """Append ``rows`` in their order, one at a time: they may come from a generator larger than memory."""
        for row in rows:
            self.append(row)

    def _flush(self) -> None:
        try:
            write_at(self._descriptor, memoryview(self._waiting), self._bounds[-1] - len(self._waiting))
        except OSError as error:
            raise InfrastructureError(
                f"{self.folder}: {error.strerror} after {self._bounds[-1] / 1e9:.1f} GB of scratch data",
                hint="check the disk and its free space, then run again",
            ) from error
        self._waiting = bytearray()

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.kinds)

    def __iter__(self) -> Iterator[T]:
        """Yield all rows in order, also those that are added meanwhile."""
        start = 0
        while start < len(self):
            rows = self[start : start + READ_ROWS]
            yield from rows
            start += len(rows)

    @overload
    def __getitem__(self, where: int) -> T: ...

    @overload
    def __getitem__(self, where: slice) -> list[T]: ...

    def __getitem__(self, where: int | slice) -> T | list[T]:
        """Read a row, or a run of rows."""
        if self._waiting:
            self._flush()
        if not isinstance(where, slice):
            number = range(len(self))[where]
            low, high = self._bounds[number : number + 2]
            return self._decoders[self.kinds[number]].decode(read_at(self._descriptor, high - low, low))
        start, stop, step = where.indices(len(self))
        if step != 1:
            raise ValueError(f"step {step}: rows are read one after the other")
        bounds = self._bounds[start : stop + 1]
        block = read_at(self._descriptor, bounds[-1] - bounds[0], bounds[0]) if start < stop else b""
        return [
            self._decoders[kind].decode(block[low - bounds[0] : high - bounds[0]])
            for kind, (low, high) in zip(self.kinds[start:stop], pairwise(bounds), strict=False)
        ]

    def close(self) -> None:
        """Close the file and free its disk space; the list cannot be read after it."""
        self._close()


def write_at(descriptor: int, content: memoryview, position: int) -> None:
    """Write all of ``content`` at a byte ``position`` of an open file (``descriptor``); threads may write other parts of it meanwhile."""
    while content:
        count = os.pwrite(descriptor, content, position)
        content, position = content[count:], position + count


def read_at(descriptor: int, size: int, position: int) -> bytes:
    """Return the ``size`` bytes at a byte ``position`` of an open file (``descriptor``); one system call reads at most 2 GB."""
    parts = []
    while size > 0:
        parts.append(os.pread(descriptor, size, position))
        if not parts[-1]:
            raise InfrastructureError(
                f"a scratch file ends {size} bytes early: another program changed it", hint="run the same command again"
            )
        size, position = size - len(parts[-1]), position + len(parts[-1])
    return parts[0] if len(parts) == 1 else b"".join(parts)


def require_free_bytes(folder: Path, needed: int, purpose: str) -> None:
    """Check that the disk of ``folder`` has ``needed`` free bytes; ``purpose`` names the work in the error.

    Raises  InfrastructureError with the bytes that are needed and those that are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InfrastructureError(
            f"{folder.absolute()}: {purpose} needs {needed / 1e9:.1f} GB on this disk, and {free / 1e9:.1f} GB are free",
            hint="free space there, or put the project's folder .tunectl on a larger disk (a link to a folder will do)",
        )

"""Records on disk that are needed once more: to merge the references of one input, or to follow a chain of rows."""

from __future__ import annotations

import hashlib
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
from msgspec.structs import replace

from tunectl.artifacts.records import Example

T = TypeVar("T", bound=msgspec.Struct)


class DiskBuffer(Generic[T]):
    """Records written one after the other into an unnamed file, and read back by number.

    It takes 8 bytes of memory a record, and vanishes with the process.
    """

    def __init__(self, folder: Path, shape: type[T]) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (closed by ``close``)
        self._encoder = msgspec.json.Encoder(enc_hook=str)
        self._decoder = msgspec.json.Decoder(shape)
        self._ends = array("Q")

    def __len__(self) -> int:
        """How many records there are."""
        return len(self._ends)

    def add(self, record: T) -> int:
        """Write a record; returns its number, from 0."""
        line = self._encoder.encode(record)
        self._file.seek(0, 2)
        self._file.write(line)
        self._ends.append((self._ends[-1] if self._ends else 0) + len(line))
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> T:
        """Read a record."""
        start = self._ends[number - 1] if number else 0
        self._file.seek(start)
        return self._decoder.decode(self._file.read(self._ends[number] - start))

    def close(self) -> None:
        """Free the disk."""
        self._file.close()


class ReferenceMerger:
    """Gathers examples of the same input: one record with all the answers, in the order of the first of each."""

    def __init__(self, folder: Path) -> None:
        self._spool = DiskBuffer(folder, Example)
        self._groups: dict[bytes, int] = {}
        self._members: list[array[int]] = []

    def add(self, example: Example) -> None:
        """Take one example in."""
        number = self._spool.add(example)
        group = self._groups.setdefault(input_digest(example), len(self._members))
        if group == len(self._members):
            self._members.append(array("L"))
        self._members[group].append(number)

    def iter_merged(self) -> Iterator[Example]:
        """Yield each input once; fields, split and source are those of its first row."""
        for members in self._members:
            first = self._spool[members[0]]
            if len(members) > 1:
                answers = [answer for number in members for answer in self._spool[number].answers]
                first = replace(first, answers=answers)
            yield first
        self._spool.close()


def input_digest(example: Example) -> bytes:
    """Return the identity of an input: the conversation before the answer, the tools, and the user's own split."""
    encoded = msgspec.json.encode((example.messages, example.tools, example.split, example.segments, example.tokens))
    return hashlib.blake2b(encoded, digest_size=12).digest()

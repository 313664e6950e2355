"""Merge all rows of a source that have the same input into one example, on disk meanwhile."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec.structs import replace

from tunectl.artifacts.disk_list import DiskList
from tunectl.artifacts.records import Example


class ReferenceMerger:
    """Merges examples with the same input into one with all answers, in the order of each input's first row."""

    def __init__(self, folder: Path) -> None:
        self._spool = DiskList(folder, Example)
        self._groups: dict[bytes, int] = {}
        self._members: list[array[int]] = []

    def add(self, example: Example) -> None:
        """Add one example to those of its input."""
        number = self._spool.append(example)
        group = self._groups.setdefault(input_digest(example), len(self._members))
        if group == len(self._members):
            self._members.append(array("L"))
        self._members[group].append(number)

    def iter_merged(self) -> Iterator[Example]:
        """Yield one example per input; fields, split and source are those of its first row."""
        for members in self._members:
            first = self._spool[members[0]]
            if len(members) > 1:
                answers = [answer for number in members for answer in self._spool[number].answers]
                first = replace(first, answers=answers)
            yield first
        self._spool.close()


def input_digest(example: Example) -> bytes:
    """Return a digest that identifies an input: the conversation before the answer, the tools, and the user's own split.

    Ids of examples follow from it, so it stays beside ``exact_input_key``: docs/decisions/0016-same-input.md.
    """
    encoded = msgspec.json.encode((example.messages, example.tools, example.split, example.segments, example.tokens))
    return hashlib.blake2b(encoded, digest_size=12).digest()

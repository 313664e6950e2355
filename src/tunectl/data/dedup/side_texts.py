"""The texts by which records are compared: in memory, or read from records on disk."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import overload

from tunectl.artifacts.disk_list import DiskList
from tunectl.artifacts.records import Document, Example
from tunectl.config.schema.curate import TextSide
from tunectl.data.dedup.shingles import TextsOnDisk
from tunectl.data.record_text import input_text, output_text
from tunectl.data.transform import Record

_SIDES: dict[TextSide, list[Callable[[Example], str]]] = {
    "input": [input_text],
    "output": [output_text],
    "both": [input_text, output_text],
}


def read_sides(records: Sequence[Record], indexes: Sequence[int], side: TextSide) -> list[Sequence[str]]:
    """Return the texts by which the records at ``indexes`` (all documents, or all examples) are compared.

    Documents have one list of texts; examples have one of inputs, one of answers, or both, by ``side``.
    """
    if indexes and isinstance(records[indexes[0]], Document):
        return [_read_texts(records, indexes, _document_text)]

    def of_example(text: Callable[[Example], str]) -> Callable[[Record], str]:
        return lambda record: text(record) if isinstance(record, Example) else ""

    return [_read_texts(records, indexes, of_example(text)) for text in _SIDES[side]]


def _document_text(record: Record) -> str:
    return record.text if isinstance(record, Document) else ""


def _read_texts(records: Sequence[Record], indexes: Sequence[int], text: Callable[[Record], str]) -> Sequence[str]:
    if isinstance(records, DiskList):
        return _RecordTexts(records, indexes, text)
    return [text(records[index]) for index in indexes]


class _RecordTexts(TextsOnDisk):
    def __init__(self, records: DiskList[Record], indexes: Sequence[int], text: Callable[[Record], str]) -> None:
        self._records, self._indexes, self._text = records, indexes, text
        self.lengths = array("I")
        for start in range(0, len(indexes), 1024):
            self.lengths.extend(map(len, self[start : start + 1024]))

    def __len__(self) -> int:
        return len(self._indexes)

    @overload
    def __getitem__(self, where: int) -> str: ...

    @overload
    def __getitem__(self, where: slice) -> list[str]: ...

    def __getitem__(self, where: int | slice) -> str | list[str]:
        if not isinstance(where, slice):
            return self._text(self._records[self._indexes[where]])
        indexes = self._indexes[where]
        if len(indexes) and indexes[-1] - indexes[0] == len(indexes) - 1:  # neighbors: one read
            return [self._text(record) for record in self._records[indexes[0] : indexes[-1] + 1]]
        return [self._text(self._records[index]) for index in indexes]

"""Mask personal data in records, with one set of placeholders for all texts of a record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

from msgspec.structs import replace

from tunectl.artifacts.records import Document, RejectedRow, truncate
from tunectl.data.record_text import TextKind, all_texts, map_texts
from tunectl.data.transform import Outcome, Record, Scope
from tunectl.privacy.mask import PiiMasker, PlaceholderMap
from tunectl.privacy.structured import ValueMasker, iterate_texts


class MaskPii:
    """The filter that masks personal data in documents, messages and their speakers, answers, segments, tool calls and tools.

    Declared ``fields`` and the source's file name are not text of the record and are not masked.
    """

    name = "personal data"
    scope: Scope = "record"

    def __init__(self, masker: PiiMasker) -> None:
        self.masker = masker
        self.counts: Counter[str] = Counter()
        """Masked places by kind."""
        self.records = 0
        """Records in which something was masked."""
        self._clean_tools: Any = None
        """The last tools in which nothing was masked: most records of a source offer the same ones."""

    def __call__(self, records: Iterable[Record]) -> Iterator[Outcome]:
        """Yield each record with placeholders."""
        for record in records:
            memory = PlaceholderMap()
            for text in chain(all_texts(record), iterate_texts(_list_values(record))):
                memory.reserve(text)
            before = self.counts.total()

            def mask(texts: Sequence[str], _kind: TextKind | None = None, memory: PlaceholderMap = memory) -> list[str]:
                masked = self.masker.mask_parts(texts, memory)
                self.counts.update(chain.from_iterable(item.counts.elements() for item in masked))
                return [item.text for item in masked]

            hidden = map_texts(record, mask, partial(self._mask_value, ValueMasker(mask)))
            self.records += self.counts.total() > before
            yield hidden

    def _mask_value(self, values: ValueMasker, value: Any, key: str) -> Any:
        if key == "tools" and value == self._clean_tools:
            return value
        masked = values(value, key)
        if key == "tools" and masked == value:
            self._clean_tools = value
        return masked


def _list_values(record: Record) -> list[Any]:
    """Return what of a record is no text of its own: tools, tool calls and names of speakers."""
    if isinstance(record, Document):
        return []
    return [record.tools, *([turn.name, turn.tool_calls] for turn in record.messages)]


def mask_reject(reject: RejectedRow, masker: PiiMasker) -> RejectedRow:
    """Return ``reject`` without personal data in its sample and detail: rejected rows must not leak it either."""
    return replace(reject, detail=masker.mask(reject.detail).text, sample=truncate(masker.mask(reject.sample).text))

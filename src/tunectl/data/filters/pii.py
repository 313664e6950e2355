"""Mask personal data in records, with one set of placeholders for all texts of a record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from tunectl.artifacts.records import RejectedRow, truncate
from tunectl.data.record_text import TextKind, all_texts, map_texts
from tunectl.data.transform import Outcome, Record, Scope
from tunectl.privacy.mask import PiiMasker, PlaceholderMap


class MaskPii:
    """The filter that masks personal data in documents, messages, answers, segments and arguments of tool calls.

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

    def __call__(self, records: Iterable[Record]) -> Iterator[Outcome]:
        """Yield each record with placeholders."""
        for record in records:
            memory = PlaceholderMap()
            for text in all_texts(record):
                memory.reserve(text)
            before = self.counts.total()

            def mask(text: str, kind: TextKind, memory: PlaceholderMap = memory) -> str:  # noqa: ARG001
                masked = self.masker.mask(text, memory)
                self.counts.update(masked.counts)
                return masked.text

            hidden = map_texts(record, mask)
            self.records += self.counts.total() > before
            yield hidden


def mask_reject(reject: RejectedRow, masker: PiiMasker) -> RejectedRow:
    """Return ``reject`` without personal data in its sample and detail: rejected rows must not leak it either."""
    return replace(reject, detail=masker.mask(reject.detail).text, sample=truncate(masker.mask(reject.sample).text))

"""Mask personal data in JSON values: in keys, texts, numbers, texts in several parts, and values whose kind the key says.

The inference log and ``curate`` walk requests, tool calls and tools with this one class, so that masking does not look like drift.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

MaskTexts = Callable[[Sequence[str]], list[str]]
"""Returns texts that follow each other, masked."""

SHORTEST_NUMBER: Final = 1_000_000
"""Smaller numbers are too short to be a telephone or card number."""
LONGEST_VALUE: Final = 512
"""Longest text that is read with its key: no word introduces a longer one."""
LONGEST_KEY: Final = 100
"""Longest key that is read with its value: a long one with many values would be read as often."""
SILENT_KEYS: Final = frozenset(("content", "text", "arguments", "description", "role", "type", "id", "object"))
"""Keys of the API that say nothing about their value."""
_NAMES: Final = frozenset(("function", "function_call", "json_schema", "custom"))
"""Objects of the API whose ``name`` is that of a program, and no person's."""


@dataclass(frozen=True, slots=True)
class ValueMasker:
    """Masks JSON values with ``mask``; ``left_out`` are keys that are removed."""

    mask: MaskTexts
    left_out: frozenset[str] = frozenset()

    def __call__(self, value: Any, key: str = "") -> Any:
        """Return ``value``, which stands under ``key``, without personal data."""
        if isinstance(value, dict):
            named = key in _NAMES or not value.keys().isdisjoint(("role", "type"))
            return {
                self._text(name): self(item, "" if name == "name" and named else name)
                for name, item in value.items()
                if name not in self.left_out
            }
        if isinstance(value, list):
            return self._mask_content(value) if key == "content" else [self(item, key) for item in value]
        if isinstance(value, str):
            return self._with_key(key, self._text(value))
        is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if not is_whole or abs(value) < SHORTEST_NUMBER:
            return value
        masked = self._text(str(int(value)))
        masked = self._with_key(key, int(value)) if masked == str(int(value)) else masked
        return value if masked == int(value) else masked

    def _text(self, text: str) -> str:
        return self.mask([text])[0]

    def _mask_content(self, parts: list[Any]) -> list[Any]:
        """Return the parts of one content with their texts masked as the model reads them: one after the other, without a space."""
        texts = [part["text"] for part in parts if _is_text_part(part)]
        masked = iter(self.mask(texts) if texts else texts)
        return [
            {**self({**part, "text": ""}), "text": next(masked)} if _is_text_part(part) else self(part)
            for part in parts
        ]

    def _with_key(self, key: str, value: str | int) -> Any:
        """Return ``value`` masked as it is read behind its key, as in the JSON of both: ``{"password": "..."}``."""
        is_silent = not 0 < len(key) <= LONGEST_KEY or key in SILENT_KEYS
        if is_silent or (isinstance(value, str) and not 0 < len(value) <= LONGEST_VALUE):
            return value
        text = json.dumps({key: value}, ensure_ascii=False)
        masked = self._text(text)
        if masked == text:
            return value
        try:
            return next(iter(json.loads(masked).values()))
        except ValueError:
            return masked


def _is_text_part(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str)


def iterate_texts(value: Any) -> Iterator[str]:
    """Yield every text of a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from iterate_texts(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from iterate_texts(item)

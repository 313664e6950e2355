"""Encode special tokens in user text as plain text: only the chat template may begin and end turns.

A tokenizer recognizes ``<|im_end|>`` anywhere. So that nobody can forge a turn, the template gets contents in which
each special token is broken by ``GUARD``, and its output is encoded with the template's own tokens recognized and the broken
ones as ordinary text. Without special tokens in the contents, text and ids are unchanged.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec

from tunectl.artifacts import atomic_io
from tunectl.core.errors import ArtifactError

TOKENIZER: Final = "tokenizer.json"
GUARD: Final = "\ufdd2"
"""A Unicode noncharacter, put after the first letter of a special token that is only text."""
_OPEN, _CLOSE = "\ufdd3", "\ufdd4"
_RESERVED: Final = dict.fromkeys(range(0xFDD0, 0xFDF0))
"""Noncharacters, which have no meaning in a text: templates and encoders here use some of them as marks."""


class _AddedToken(msgspec.Struct):
    content: str
    special: bool = False


class _TokenizerFile(msgspec.Struct):
    added_tokens: list[_AddedToken] = []


def load_special_texts(folder: Path) -> tuple[str, ...]:
    """Return the texts of the special tokens in ``folder``'s tokenizer.json; none where there is no such file.

    Raises  ArtifactError when it is not a tokenizer.json of the library tokenizers.
    """
    path = folder / TOKENIZER
    if not path.is_file():
        return ()
    try:
        result = msgspec.json.decode(path.read_bytes(), type=_TokenizerFile)
    except atomic_io.NOT_JSON as error:
        raise ArtifactError(
            f"{path} is not a tokenizer: {error}", hint="rebuild it with: tunectl repro --force --to model"
        ) from error
    return tuple(token.content for token in result.added_tokens if token.special)


def guard_text(text: str, special: Sequence[str]) -> str:
    """Return ``text`` with a guard character (U+FDD2) inside each of the ``special`` tokens in it; guards that it had are removed."""
    if not text.isascii():
        text = text.translate(_RESERVED)
    offsets = {start + 1 for start, _ in _find_all(text, special)}
    if not (text.isascii() or unicodedata.is_normalized("NFKC", text)):
        offsets |= _find_normalized(text, special)
    if not offsets:
        return text
    positions = sorted(offsets)
    return GUARD.join(text[start:end] for start, end in pairwise([0, *positions, len(text)]))


def guard_parts(parts: Sequence[str], special: Sequence[str]) -> list[str]:
    """Return the ``parts`` of one text with ``guard_text`` applied to that text: a special token may begin in one and end in another."""
    text = guard_text("".join(parts), special)
    result: list[str] = []
    start = 0
    for part in parts:
        end, rest = start, len(part if part.isascii() else part.translate(_RESERVED))
        while rest:
            rest -= text[end] != GUARD
            end += 1
        result.append(text[start:end])
        start = end
    return result


def guard_value(value: Any, special: Sequence[str]) -> Any:
    """Return the JSON value with ``guard_text`` applied to each of its strings."""
    if isinstance(value, str):
        return guard_text(value, special)
    if isinstance(value, list):
        return [guard_value(item, special) for item in value]
    if isinstance(value, dict):
        return {guard_value(key, special): guard_value(item, special) for key, item in value.items()}
    return value


def remove_guards(text: str) -> str:
    """Return ``text`` without the guard characters (U+FDD2) that ``guard_text`` puts in."""
    return text.replace(GUARD, "")


def _find_normalized(text: str, special: Sequence[str]) -> set[int]:
    """Return the indices behind letters that begin a special token once they are normalized, as full-width ones: a tokenizer may do that."""
    pieces = [unicodedata.normalize("NFKC", letter) for letter in text]
    indices = [index for index, piece in enumerate(pieces, 1) for _ in piece]
    return {indices[start] for start, _ in _find_all("".join(pieces), special)}


def _find_all(text: str, tokens: Iterable[str]) -> list[tuple[int, str]]:
    """Return where each of the tokens begins, also inside another one. By ``str.find``: linear also for a malicious text."""
    result = []
    for token in tokens:
        start = text.find(token)
        while start >= 0:
            result.append((start, token))
            start = text.find(token, start + 1)
    return result


class LiteralEncoder:
    """Encodes guarded texts with a copy of the tokenizer in which special tokens are renamed, so that one in a text stays plain text.

    They are renamed in the model's vocabulary, too: Unigram, WordLevel, WordPiece and BPE that looks up whole words would else make one
    out of the letters of a text.
    """

    def __init__(self, tokenizer: Any) -> None:
        """``tokenizer`` is one of the library ``tokenizers``; it is not changed."""
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._special = {number: token.content for number, token in added.items() if token.special}
        self._names = {content: f"{_OPEN}{number}{_CLOSE}" for number, content in self._special.items()}

    @cached_property
    def _inner(self) -> Any:
        settings = _rename_tokens(json.loads(self._tokenizer.to_str()), self._names)
        return type(self._tokenizer).from_str(json.dumps(settings))

    @cached_property
    def _unknown(self) -> int | None:
        model = json.loads(self._tokenizer.to_str())["model"]
        text = model.get("unk_token")
        number: int | None = model.get("unk_id") if text is None else self._tokenizer.token_to_id(text)
        return number

    def is_misread(self, text: str, ids: Sequence[int]) -> bool:
        """Return whether the tokenizer's own ``ids`` of ``text`` hold special tokens that nobody wrote so: a normalizer made them.

        The token for unknown letters does not count; ``model`` refuses one that begins or ends something.
        """
        return any(
            ids.count(number) > text.count(self._special[number]) and number != self._unknown
            for number in self._special.keys() & ids
        )

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return (token ids, [start, end) characters of ``text`` that each came from, guards included)."""
        pieces: list[str] = []
        offsets: list[tuple[int, int]] = []
        end = 0
        for start, token in self._find_real(text):
            _append(text, end, start, pieces, offsets)
            end = start + len(token)
            name = self._names[token]
            pieces.append(name)
            offsets += [(start, end)] * len(name)
        _append(text, end, len(text), pieces, offsets)
        encoded = self._inner.encode_batch(["".join(pieces)], add_special_tokens=False)[0]
        spans = [
            (offsets[start][0], offsets[stop - 1][1])
            if stop > start
            else (offsets[start - 1][1],) * 2
            if start
            else (0, 0)
            for start, stop in encoded.offsets
        ]
        return list(encoded.ids), spans

    def _find_real(self, text: str) -> Iterator[tuple[int, str]]:
        """Yield special tokens that the template wrote, the longest where several begin; a token of one letter is broken by the guard after it."""
        end = 0
        for start, token in sorted(_find_all(text, self._names), key=lambda item: (item[0], -len(item[1]))):
            if start >= end and not (len(token) == 1 and text[start + 1 : start + 2] == GUARD):
                end = start + len(token)
                yield start, token


def _append(text: str, start: int, end: int, pieces: list[str], indexes: list[tuple[int, int]]) -> None:
    """Append ``text[start:end]`` without its guards, and the position of each letter."""
    part = text[start:end]
    pieces.append(remove_guards(part))
    indexes += [(number, number + 1) for number, letter in enumerate(part, start) if letter != GUARD]


def _rename_tokens(settings: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the content of a tokenizer.json with other names for its special tokens, the ids unchanged; merges that make one are left out."""
    for token in settings["added_tokens"]:
        if token["special"]:
            token.update(content=names[token["content"]], special=False, normalized=False)
    model = settings["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(piece, piece): number for piece, number in model["vocab"].items()}
    else:
        model["vocab"] = [(names.get(piece, piece), score) for piece, score in model["vocab"]]
    if "unk_token" in model:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    prefix = model.get("continuing_subword_prefix") or ""
    if "merges" in model:
        model["merges"] = [
            (left, right)
            for left, right in model["merges"]
            if names.keys().isdisjoint((left, right, left + right.removeprefix(prefix)))
        ]
    return settings


def encode_rendered(tokenizer: Any, texts: Sequence[str], ids: list[list[int]]) -> list[list[int]]:
    """Return ``ids``, which ``tokenizer`` gave for rendered ``texts``, with those replaced in which a text of somebody became a special token."""
    literal = LiteralEncoder(tokenizer)
    return [
        literal.encode(text)[0] if has_guard([text]) or literal.is_misread(text, own) else own
        for text, own in zip(texts, ids, strict=True)
    ]


def has_guard(texts: Iterable[str]) -> bool:
    """Return whether one of ``texts`` has a guard character of ``guard_text``, so that a ``LiteralEncoder`` must encode it."""
    return any(GUARD in text for text in texts)

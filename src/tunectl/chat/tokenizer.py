"""The tokenizer of a model folder, through ``tokenizers``: text to ids, with the position of each."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tunectl.chat.literal_tokens import LiteralEncoder, guard_text, has_guard
from tunectl.core.errors import ArtifactError
from tunectl.core.optional import import_optional

FILE = "tokenizer.json"
_UNUSUAL = "\u16a0\u2603\U0001f9ff\U0010fffd"
"""Letters that hardly any vocabulary has."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """Ids of the tokens of one text, and the [start, end) characters that each came from."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class Tokenizer:
    """Encodes texts that a chat template has rendered: special tokens are in the text, none are added.

    Special tokens with a guard character inside (``chat/literal_tokens.py``) are encoded as plain text.
    """

    def __init__(self, folder: Path) -> None:
        """Read ``folder``'s tokenizer.json.

        Raises  ArtifactError when it is absent or not a tokenizer.
        """
        tokenizers = import_optional("tokenizers", extra="train")
        path = folder / FILE
        if not path.is_file():
            raise ArtifactError(
                f"{path}, the tokenizer, does not exist",
                hint="build the model: tunectl repro --to model; a release: restore it from a backup",
            )
        try:
            self._inner: Any = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exception
            raise ArtifactError(
                f"{path} is not a tokenizer: {error}", hint="rebuild it with: tunectl repro --force --to model"
            ) from error
        self._inner.no_truncation()
        self._inner.no_padding()
        added = self._inner.get_added_tokens_decoder()
        self.special = frozenset(number for number, token in added.items() if token.special)
        self.special_texts = tuple(token.content for token in added.values() if token.special)
        self._added = {number: token.content.encode() for number, token in added.items() if not token.special}
        decoders = set(
            re.findall(
                r'"type":"(\w+)"', json.dumps(json.loads(self._inner.to_str())["decoder"], separators=(",", ":"))
            )
        )
        self._bytes = _alphabet() if "ByteLevel" in decoders else None
        self.strips = "Strip" in decoders
        """Whether the decoder takes one space from the start of a text."""

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        """Return the ids of all ``texts``; several times faster than one text at a time."""
        result = self._inner.encode_batch(list(texts), add_special_tokens=False)
        encoded = [Encoding(list(item.ids), list(item.offsets)) for item in result]
        for index, text in enumerate(texts):
            if has_guard([text]) or self._literal.is_misread(text, encoded[index].ids):
                encoded[index] = Encoding(*self._literal.encode(text))
        return encoded

    @cached_property
    def _literal(self) -> LiteralEncoder:
        return LiteralEncoder(self._inner)

    def id_of(self, text: str) -> int | None:
        """Return the id of one whole token; None where there is no such token."""
        number: int | None = self._inner.token_to_id(text)
        return number

    def text_of(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``, special tokens shown."""
        text: str = self._inner.decode(list(ids), skip_special_tokens=False)
        return text

    def tokens_of(self, ids: Sequence[int]) -> list[str]:
        """Return each token's own text; the pieces of a character that spans tokens are shown as replacement signs."""
        return [self.text_of([number]) for number in ids]

    def ids(self, text: str) -> list[int]:
        """Return the token ids of one text, encoded as a batch of one.

        Unlike the library's ``encode`` for one text, a batch releases Python's lock (GIL), so other threads run beside a long text.
        """
        if has_guard([text]):
            return self._literal.encode(text)[0]
        result: list[int] = self._inner.encode_batch([text], add_special_tokens=False)[0].ids
        return self._literal.encode(text)[0] if self._literal.is_misread(text, result) else result

    @property
    def kind(self) -> str:
        """Kind of the model: BPE, Unigram, WordLevel or WordPiece."""
        return type(self._inner.model).__name__

    def find_forgeable_tokens(self) -> list[str]:
        """Return special tokens that letters of a text become all the same, as the token for unknown letters."""
        written = guard_text("\n".join((*self.special_texts, *_UNUSUAL)), self.special_texts)
        return sorted(self._inner.id_to_token(number) for number in self.special.intersection(self.ids(written)))

    def bytes_of(self, number: int) -> bytes:
        """Return the UTF-8 bytes that one token adds to a text; they may end inside a character.

        Empty for a special token, and for an id without a token: models pad their vocabulary, and may sample such ids.
        """
        if number in self._added:
            found_bytes: bytes = self._added[number]
            return found_bytes
        token: str | None = None if number in self.special else self._inner.id_to_token(number)
        if token is None:
            return b""
        if self._bytes is not None:
            try:
                return bytes(self._bytes[letter] for letter in token)
            except KeyError:  # not written in that alphabet: tokenizers takes it as it is
                return token.encode()
        if (match := _BYTE.match(token)) is not None:
            return bytes([int(match[1], 16)])
        return token.replace("\u2581", " ").encode()

    @cached_property
    def size(self) -> int:
        """Size of the vocabulary: all ids are below it, also where some are free."""
        return 1 + max(self._inner.get_vocab().values(), default=-1)


_BYTE = re.compile(r"^<0x([0-9A-F]{2})>$")


def _alphabet() -> dict[str, int]:
    """Return the letters by which byte-level tokenizers (GPT-2) write bytes: printable bytes are themselves."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + index): byte for index, byte in enumerate(rest)}

"""The tokenizer of a model folder, through ``tokenizers``: text to numbers, with the place of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunectl.core.errors import ArtifactError
from tunectl.core.lazy import need

FILE = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class Encoded:
    """Numbers of the tokens of one text, and the [start, end) characters that each came from."""

    ids: list[int]
    places: list[tuple[int, int]]


class Tokenizer:
    """Encodes texts that a chat template has rendered: special tokens are in the text, none are added."""

    def __init__(self, folder: Path) -> None:
        """Read ``folder``'s tokenizer.json.

        Raises  ArtifactError when it is absent or no tokenizer.
        """
        tokenizers = need("tokenizers", extra="train")
        path = folder / FILE
        if not path.is_file():
            raise ArtifactError(f"{path} does not exist", hint="run: tunectl repro")
        try:
            self._inner: Any = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exception
            raise ArtifactError(f"{path} is not a tokenizer: {error}") from error
        self._inner.no_truncation()
        self._inner.no_padding()
        self.special = frozenset(
            number for number, token in self._inner.get_added_tokens_decoder().items() if token.special
        )

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """All ``texts`` at once, which is several times faster than one at a time."""
        found = self._inner.encode_batch(list(texts), add_special_tokens=False)
        return [Encoded(list(item.ids), list(item.offsets)) for item in found]

    def id_of(self, text: str) -> int | None:
        """The number of one whole token; None where there is no such token."""
        number: int | None = self._inner.token_to_id(text)
        return number

    def text_of(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, special tokens shown."""
        text: str = self._inner.decode(list(ids), skip_special_tokens=False)
        return text

    def tokens_of(self, ids: Sequence[int]) -> list[str]:
        """Each token's own text; the pieces of a character that spans tokens are shown as replacement signs."""
        return [self.text_of([number]) for number in ids]

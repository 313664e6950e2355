"""Pack raw text into blocks of equal length: documents one after the other, with an end-of-text token between them."""

from __future__ import annotations

from collections.abc import Sequence

from tunectl.chat.literal_tokens import guard_text
from tunectl.chat.loss_mask import TokenSpan
from tunectl.chat.tokenizer import Tokenizer
from tunectl.training.prefix_sharing import PackedRow

SHORTEST = 8
"""Fewest tokens of a last block; a shorter one is dropped."""


def pack(tokenizer: Tokenizer, texts: Sequence[str], *, size: int, end: int) -> list[PackedRow]:
    """Concatenate ``texts`` as tokens, with the token ``end`` after each, and return them cut into rows of ``size`` tokens.

    The last row may be shorter. Every token is trained on. A special token that is spelled out in a text is encoded as plain text.
    """
    line: list[int] = []
    for encoded in tokenizer.encode([guard_text(text, tokenizer.special_texts) for text in texts]):
        line += [*encoded.ids, end]
    cut = [line[start : start + size] for start in range(0, len(line), size)]
    return [
        PackedRow(TokenSpan([], []), (TokenSpan(ids, [True] * len(ids)),), 1.0) for ids in cut if len(ids) >= SHORTEST
    ]

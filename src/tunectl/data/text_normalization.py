"""Normalize texts so that those that differ only in case, white space, or the punctuation around words are equal."""

from __future__ import annotations

from hashlib import blake2b

_EDGES = ".,;:!?'\"…\u2018\u2019“”„«»"


def normalize(text: str) -> str:
    """Return the text case-folded, with one space between words and no punctuation at their edges; signs inside and between words stay.

    A text of punctuation only is unchanged, so that ``?`` and ``!`` differ.
    """
    words = [word.strip(_EDGES) for word in text.casefold().split()]
    return " ".join(word for word in words if word) or text


def digest16(*parts: str | bytes) -> bytes:
    """Return a 16-byte digest of ``parts``, as a key of large sets; the length of each part is included, so that their borders matter."""
    total = blake2b(digest_size=16)
    for part in parts:
        content = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        total.update(b"%d:" % len(content))
        total.update(content)
    return total.digest()

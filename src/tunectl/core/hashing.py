"""Positions and names from a hash: the same text gives the same value in every run and on every machine.

Splits, held-out questions, canary assignments and ids of rows follow from these values, so neither the functions nor the texts
that callers pass may change (tests/unit/core/test_hashing.py has values).
"""

from __future__ import annotations

import hashlib


def hash_to_bytes(text: str) -> bytes:
    """Return the first eight bytes of a BLAKE2b digest: sort by them for a random order that never changes."""
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def hash_to_unit(text: str) -> float:
    """Return a number from 0 to 1, uniform over texts: ``hash_to_unit(x) < share`` selects a constant share."""
    return int.from_bytes(hash_to_bytes(text)) / 2**64


def hash_to_id(*parts: object, size: int = 8) -> str:
    """Return an id computed from the JSON of ``parts``: 2 x ``size`` hexadecimal digits."""
    import msgspec

    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=size).hexdigest()

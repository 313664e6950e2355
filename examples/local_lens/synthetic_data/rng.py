"""A seeded random number generator that gives the same values on every Python version: it uses only ``random()``, which Python keeps stable."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")

SEED = "local-lens-2026"


class SeededRng:
    """One random stream; streams with different names are independent."""

    def __init__(self, name: str) -> None:
        self._random = random.Random(f"{SEED}/{name}")

    def randbelow(self, limit: int) -> int:
        """Return an integer from 0 to ``limit - 1``."""
        return int(self._random.random() * limit)

    def choice(self, items: Sequence[T]) -> T:
        """Return one of ``items``."""
        return items[self.randbelow(len(items))]

    def shuffle(self, items: Sequence[T]) -> list[T]:
        """Return ``items`` in random order."""
        result = list(items)
        for last in range(len(result) - 1, 0, -1):
            other = self.randbelow(last + 1)
            result[last], result[other] = result[other], result[last]
        return result

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """Return ``count`` different ones of ``items``."""
        return self.shuffle(items)[:count]

    def distribute(self, shares: Mapping[str, float], count: int) -> list[str]:
        """Return ``count`` keys in random order, each in proportion to its share; shares add up to 1."""
        ends, total = {}, 0.0
        for name, share in shares.items():
            total += share
            ends[name] = total * count
        names = list(shares)
        places = [
            min((name for name in names if ends[name] > index), key=names.index, default=names[-1])
            for index in range(count)
        ]
        return self.shuffle(places)

"""Seeded choice that gives the same values on every Python version: only ``random()`` is used, which is promised to stay."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")

SEED = "local-lens-2026"


class Dice:
    """One stream of choices; streams with different names do not disturb each other."""

    def __init__(self, name: str) -> None:
        self._random = random.Random(f"{SEED}/{name}")

    def below(self, limit: int) -> int:
        """A whole number from 0 to ``limit - 1``."""
        return int(self._random.random() * limit)

    def pick(self, items: Sequence[T]) -> T:
        """One of ``items``."""
        return items[self.below(len(items))]

    def shuffle(self, items: Sequence[T]) -> list[T]:
        """``items`` in another order."""
        result = list(items)
        for last in range(len(result) - 1, 0, -1):
            other = self.below(last + 1)
            result[last], result[other] = result[other], result[last]
        return result

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """``count`` different ones of ``items``."""
        return self.shuffle(items)[:count]

    def distribute(self, shares: Mapping[str, float], count: int) -> list[str]:
        """``count`` keys in mixed order, each as often as its share says; shares add up to 1."""
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

"""Find inputs that differ in one or two attributes, without comparing every two."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import Literal, NamedTuple

from tunectl.core.hashing import hash_to_bytes

DifferenceKind = Literal["wrong", "missing", "extra"]
KINDS: tuple[DifferenceKind, ...] = ("wrong", "missing", "extra")
MAX_CANDIDATES = 32
"""Number of inputs examined for each way to remove attributes; of more a sample is drawn by the seed."""


class AttributeDifference(NamedTuple):
    """One attribute in which two inputs differ, and how: wrong, missing or extra."""

    kind: DifferenceKind
    name: str


def diff_attributes(own: Mapping[str, str], other: Mapping[str, str]) -> list[AttributeDifference]:
    """Return the attributes that are wrong, missing or extra in ``other`` compared with ``own``, sorted by name."""
    result = []
    for name in sorted(own.keys() | other.keys()):
        if name not in other:
            result.append(AttributeDifference("missing", name))
        elif name not in own:
            result.append(AttributeDifference("extra", name))
        elif own[name] != other[name]:
            result.append(AttributeDifference("wrong", name))
    return result


class NearestInputs:
    """Finds inputs that differ in few attributes, without comparing every pair.

    Two inputs that differ in at most ``most`` attributes have the same remaining attributes once those are removed from either; so
    every input is indexed under each set that is left when up to ``most`` of its attributes are removed.
    """

    def __init__(self, inputs: Sequence[Mapping[str, str]], maximum: int) -> None:
        self._inputs, self._most = inputs, maximum
        self._filed: dict[int, list[int]] = defaultdict(list)
        for index, attributes in enumerate(inputs):
            for rest in _hash_subsets(attributes, maximum):
                self._filed[rest].append(index)

    def find(self, own: Mapping[str, str], rng: random.Random) -> dict[int, list[AttributeDifference]]:
        """Return the inputs that differ from ``own`` in 1 to ``most`` attributes, as differences by index; large groups are sampled."""
        near: dict[int, list[AttributeDifference]] = {}
        for rest in _hash_subsets(own, self._most):
            candidates = self._filed.get(rest, [])
            for index in candidates if len(candidates) <= MAX_CANDIDATES else rng.sample(candidates, MAX_CANDIDATES):
                if index not in near and 1 <= len(diffs := diff_attributes(own, self._inputs[index])) <= self._most:
                    near[index] = diffs
        return near


def _hash_subsets(attributes: Mapping[str, str], maximum: int) -> Iterator[int]:
    """Yield a number for each rest: codes of the remaining attributes, combined independent of their order."""
    codes = [_code(name, attributes[name]) for name in sorted(attributes)]
    total = 0
    for code in codes:
        total ^= code
    for count in range(min(maximum, len(codes)) + 1):
        for codes_away in combinations(codes, count):
            rest = total
            for code in codes_away:
                rest ^= code
            yield rest


@cache
def _code(name: str, value: str) -> int:
    return int.from_bytes(hash_to_bytes(f"{name}\0{value}"))

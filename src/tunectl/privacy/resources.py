"""What the finders need from libraries, as a plain value that a caller fills from the seams in ``backends``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

Spans = Iterable[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class PiiResources:
    """Library knowledge for the finders."""

    phones: Callable[[str], Spans]
    """Phone numbers that are valid in the declared countries, as (start, end)."""
    card: Callable[[str], bool]
    """Whether digits have a right check digit (Luhn)."""
    iban: Callable[[str], bool]
    """Whether an account number has its country's form and a right checksum."""
    ssn: Callable[[str], bool]
    """Whether a United States social security number can have been issued."""
    first_names: frozenset[str]
    """Case folded."""
    surnames: frozenset[str]
    """Case folded."""

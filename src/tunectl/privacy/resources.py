"""What the finders need from libraries, as a plain value that a caller fills from the wrappers in ``backends``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

Spans = Iterable[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class PiiResources:
    """Functions and lists from libraries, for the finders."""

    phones: Callable[[str], Spans]
    """Returns phone numbers that are valid in the declared countries, as (start, end)."""
    card: Callable[[str], bool]
    """Returns whether digits have a valid check digit (Luhn)."""
    iban: Callable[[str], bool]
    """Returns whether an account number has its country's form and a valid checksum."""
    ssn: Callable[[str], bool]
    """Returns whether a United States social security number is one that can be issued."""
    first_names: frozenset[str]
    """First names, case folded."""
    surnames: frozenset[str]
    """Surnames, case folded."""

"""Wrapper of phonenumbers, the port of Google's libphonenumber."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tunectl.core.errors import ConfigError
from tunectl.core.optional import import_optional


def finder(regions: list[str]) -> Callable[[str], Iterator[tuple[int, int]]]:
    """Return a function from text to the (start, end) of numbers that are valid in one of ``regions``, or written with a ``+``.

    Raises  ConfigError when the library does not know a region.
    """
    phonenumbers = import_optional("phonenumbers", extra="data")
    unknown = [region for region in regions if region not in phonenumbers.SUPPORTED_REGIONS]
    if unknown:
        known = ", ".join(sorted(phonenumbers.SUPPORTED_REGIONS))
        raise ConfigError([f"curate.pii.regions holds {', '.join(unknown)}; known regions are {known}"])

    def find(text: str) -> Iterator[tuple[int, int]]:
        for region in regions:
            for match in phonenumbers.PhoneNumberMatcher(text, region):
                yield match.start, match.end

    return find

"""All that the finders of personal data need, from the three seams that have it."""

from __future__ import annotations

from collections.abc import Iterable

from tunectl.backends import number_checks, person_names, phone_numbers
from tunectl.privacy.tools import Tools


def tools(*, regions: Iterable[str], locales: Iterable[str]) -> Tools:
    """Tools for phone numbers of ``regions`` (for example ``US``) and names of ``locales`` (for example ``en_US``).

    Raises  ConfigError for a region or locale that is not known; MissingExtra when a library is not installed.
    """
    first, last = person_names.names(list(locales))
    return Tools(
        phones=phone_numbers.finder(list(regions)),
        card=number_checks.card(),
        iban=number_checks.iban(),
        ssn=number_checks.ssn(),
        first_names=first,
        surnames=last,
    )

"""All that the finders of personal data need, from the wrappers of three libraries."""

from __future__ import annotations

from collections.abc import Iterable

from tunectl.backends.text import name_lists, number_checks, phone_numbers
from tunectl.privacy.resources import PiiResources


def tools(*, regions: Iterable[str], locales: Iterable[str]) -> PiiResources:
    """Return tools for phone numbers of ``regions`` (for example ``US``) and names of ``locales`` (for example ``en_US``).

    Raises  ConfigError for a region or locale that is not known; MissingExtraError when a library is not installed.
    """
    first, last = name_lists.names(list(locales))
    return PiiResources(
        phones=phone_numbers.finder(list(regions)),
        card=number_checks.card(),
        iban=number_checks.iban(),
        ssn=number_checks.ssn(),
        first_names=first,
        surnames=last,
    )

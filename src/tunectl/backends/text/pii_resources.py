"""Resources of the finders of personal data: phonenumbers, python-stdnum, and Faker's lists of names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tunectl.config.schema.inference_log import InferenceLogConfig
from tunectl.core.errors import ConfigError
from tunectl.core.optional import import_optional
from tunectl.privacy.mask import PiiMasker
from tunectl.privacy.resources import PiiResources


def tools(*, regions: Iterable[str], locales: Iterable[str]) -> PiiResources:
    """Return validators and finders for phone numbers of ``regions`` (such as ``US``) and names of ``locales`` (such as ``en_US``).

    Raises  ConfigError for a region or locale that is not known; MissingExtraError when a library is not installed.
    """
    first, last = names(list(locales))
    return PiiResources(
        phones=finder(list(regions)),
        card=card(),
        iban=iban(),
        ssn=ssn(),
        first_names=first,
        surnames=last,
    )


def build_masker(settings: InferenceLogConfig) -> PiiMasker:
    """Return the masker of personal data in what the server stores of requests and feedback, set by ``inference_log.pii``."""
    personal = settings.pii
    resources = tools(regions=personal.regions, locales=personal.locales)
    return PiiMasker(resources, kinds=personal.kinds, keep=personal.keep)


_FIRST = ("first_names", "first_names_male", "first_names_female", "first_names_nonbinary")


def names(locales: list[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return (first names, surnames) of ``locales``, case folded.

    Raises  ConfigError when there is no list for a locale.
    """
    first: set[str] = set()
    last: set[str] = set()
    for locale in locales:
        provider = _provider(locale)
        for attribute in _FIRST:
            first.update(name.casefold() for name in getattr(provider, attribute, ()))
        last.update(name.casefold() for name in provider.last_names)
    return frozenset(first), frozenset(last)


def _provider(locale: str) -> Any:
    from pkgutil import iter_modules

    package = import_optional("faker.providers.person", extra="data")
    locales = sorted(module.name for module in iter_modules(package.__path__))
    if locale not in locales:
        raise ConfigError(
            [f"curate.pii.locales or inference_log.pii.locales holds {locale}; known locales are {', '.join(locales)}"],
            hint=f"replace {locale} by one of these, or remove it",
        )
    return import_optional(f"faker.providers.person.{locale}", extra="data").Provider


def card() -> Callable[[str], bool]:
    """Return a function that tells whether digits pass Luhn's check (ISO/IEC 7812-1), as card numbers do."""
    valid: Callable[[str], bool] = import_optional("stdnum.luhn", extra="data").is_valid
    return valid


def iban() -> Callable[[str], bool]:
    """Return a function that tells whether a text is an IBAN with the form of its country and a valid checksum (ISO 13616)."""
    valid: Callable[[str], bool] = import_optional("stdnum.iban", extra="data").is_valid
    return valid


def ssn() -> Callable[[str], bool]:
    """Return a function that tells whether a text is a US social security number that can be issued."""
    valid: Callable[[str], bool] = import_optional("stdnum.us.ssn", extra="data").is_valid
    return valid


def finder(regions: list[str]) -> Callable[[str], Iterator[tuple[int, int]]]:
    """Return a function from text to the (start, end) of numbers that are valid in one of ``regions``, or written with a ``+``.

    Raises  ConfigError when the library does not know a region.
    """
    phonenumbers = import_optional("phonenumbers", extra="data")
    unknown = [region for region in regions if region not in phonenumbers.SUPPORTED_REGIONS]
    if unknown:
        supported_regions = ", ".join(sorted(phonenumbers.SUPPORTED_REGIONS))
        refused = ", ".join(unknown)
        raise ConfigError(
            [f"curate.pii.regions or inference_log.pii.regions holds {refused}; known regions are {supported_regions}"],
            hint=f"replace {refused} by some of these (ISO 3166), or remove it",
        )

    def find(text: str) -> Iterator[tuple[int, int]]:
        for region in regions:
            for match in phonenumbers.PhoneNumberMatcher(text, region):
                yield match.start, match.end

    return find

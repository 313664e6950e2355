"""Wrapper of Faker, for its lists of common first names and surnames by locale only."""

from __future__ import annotations

from typing import Any

from tunectl.core.errors import ConfigError
from tunectl.core.optional import import_optional

_FIRST = ("first_names", "first_names_male", "first_names_female", "first_names_nonbinary")


def names(locales: list[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return first names and surnames of ``locales``, case folded.

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
    known = sorted(module.name for module in iter_modules(package.__path__))
    if locale not in known:
        raise ConfigError([f"curate.pii.locales holds {locale}; known locales are {', '.join(known)}"])
    return import_optional(f"faker.providers.person.{locale}", extra="data").Provider

"""regex: patterns that a project declares, on texts of strangers: a search has a time limit, which ``re`` has not."""

from __future__ import annotations

from typing import Any, Final

from tunectl.core.errors import ConfigError
from tunectl.core.optional import import_optional

MAX_SECONDS: Final = 1.0
"""Of processor time, for one text: patterns that do not backtrack take a few hundredths for a million letters."""


class DeclaredPattern:
    """A regular expression from the configuration, whose searches have a time limit.

    Raises  ConfigError where a search exceeds it, as with ``(a|a)*$``, whose time doubles with each letter.
    """

    __slots__ = ("_pattern",)

    def __init__(self, pattern: str, *, ignore_case: bool = False) -> None:
        library = import_optional("regex", extra="data")
        try:
            self._pattern = library.compile(pattern, library.IGNORECASE if ignore_case else 0)
        except library.error as error:
            raise ConfigError(
                [f"the pattern {pattern!r} is not a regular expression: {error}"],
                hint="find this pattern in conf/ and correct it",
            ) from error

    def search(self, text: str) -> Any:
        """Return the first match object (of the library regex), or None."""
        try:
            return self._pattern.search(text, timeout=MAX_SECONDS)
        except TimeoutError as error:
            raise self._build_error(text) from error

    def find_all(self, text: str) -> list[Any]:
        """Return the match objects of all matches, in order."""
        try:
            return list(self._pattern.finditer(text, timeout=MAX_SECONDS))
        except TimeoutError as error:
            raise self._build_error(text) from error

    def _build_error(self, text: str) -> ConfigError:
        return ConfigError(
            [f"the pattern {self._pattern.pattern!r} took more than {MAX_SECONDS:g} s on {len(text)} characters"],
            hint="write it without a repetition inside of a repetition, and without two ways to match the same letters",
        )

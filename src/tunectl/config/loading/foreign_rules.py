"""Rules: what becomes of one setting of another tool."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tunectl.config.loading.foreign_draft import NONE, TOOL, ImportedConfig

Rule = Callable[[ImportedConfig, str, Any], None]


@contextmanager
def catch_bad_value(draft: ImportedConfig, key: str) -> Iterator[None]:
    """List ``key`` as not carried over where its value is of a kind that nobody expected there."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        draft.drop(key, f"the value cannot be understood: {error}")


def rename_to(name: str, convert: Callable[[Any], Any] = lambda value: value) -> Rule:
    """Their setting is ours under another name; ``convert`` may raise ValueError with the reason why a value cannot be."""

    def apply(draft: ImportedConfig, key: str, value: Any) -> None:
        try:
            draft.set(name, convert(value))
        except (ValueError, TypeError) as error:
            draft.drop(key, str(error))

    return apply


def drop_unsupported(reason: str) -> Rule:
    """There is no counterpart, and the result differs for it; a switch that is off is nothing to mention."""

    def apply(draft: ImportedConfig, key: str, value: Any) -> None:
        if value not in (None, False, "", [], {}, "none", 0):
            draft.drop(key, reason)

    return apply


def drop_irrelevant(reason: str) -> Rule:
    """There is no counterpart, and the result does not depend on it."""

    def apply(draft: ImportedConfig, key: str, value: Any) -> None:  # noqa: ARG001 - every rule has this form
        draft.drop(key, reason, NONE)

    return apply


def requires_value(expected: Iterable[Any], reason: str) -> Rule:
    """Their setting must have one of these values, which is what tunectl does anyway."""
    allowed = list(expected)

    def apply(draft: ImportedConfig, key: str, value: Any) -> None:
        if value not in allowed:
            draft.drop(key, reason)

    return apply


def handle_elsewhere(done: str) -> Rule:  # noqa: ARG001 - says in the table where the setting is dealt with
    """Their setting is dealt with together with another one."""
    return lambda draft, key, value: None  # noqa: ARG005


def one_of(table: Mapping[str, Any], what: str) -> Callable[[Any], Any]:
    """A conversion by table; anything else is refused with the names that there are."""

    def convert(value: Any) -> Any:
        name = str(value).lower()
        if name not in table:
            raise ValueError(
                f"{what} {value} is not offered; there are {', '.join(sorted(set(map(str, table.values()))))}"
            )
        return table[name]

    return convert


def to_float(value: Any) -> float:
    """A number, also where YAML read ``1e-4`` as text."""
    return float(value)


def to_int(value: Any) -> int:
    """A whole number; refuses fractions."""
    if float(value) != int(float(value)):
        raise ValueError(f"{value} is not a whole number")
    return int(float(value))


def convert(
    given: Mapping[str, Any], rules: Mapping[str, Rule], finish: Callable[[ImportedConfig], None]
) -> ImportedConfig:
    """Apply one rule a key, in the order of the file, then ``finish`` for what depends on several keys."""
    draft = ImportedConfig(given)
    for key, value in given.items():
        rule = rules.get(key)
        if rule is None:
            draft.drop(key, "tunectl does not know this setting; look it up in the other tool's manual", TOOL)
        else:
            with catch_bad_value(draft, key):
                rule(draft, key, value)
    finish(draft)
    return draft

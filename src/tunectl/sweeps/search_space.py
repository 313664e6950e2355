"""Turn the search space of a sweep into settings of trials and overrides."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from tunectl.config.loading.suggestions import get_at, has_path
from tunectl.config.schema.sweep import Sweep, SweepRange

_PLAIN = re.compile(r"^[A-Za-z_][\w./-]*$")
_LITERALS = frozenset({"null", "true", "false", "nan", "inf"})
"""Texts that the grammar of overrides does not read as text."""


class Suggester(Protocol):
    """Source of the values of one trial: Optuna's trial, or a fixed combination."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        """Return a number from ``low`` to ``high``, with ``log`` on a logarithmic scale."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool) -> int:
        """Return a whole number from ``low`` to ``high``, both included, with ``log`` on a logarithmic scale."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of ``choices``."""


def suggest_values(section: Sweep, suggester: Suggester, only: frozenset[str] | None = None) -> dict[str, Any]:
    """Return a value for each setting of one trial, by name and in the order of the space; settings whose condition is false are left out.

    ``only``: names of the settings to return; None: all.
    """
    values: dict[str, Any] = {}
    for key, choices in section.space.items():
        if not _is_active(section, key, values) or (only is not None and key not in only):
            continue
        if not isinstance(choices, SweepRange):
            values[key] = decode_choice(
                suggester.suggest_categorical(key, [encode_choice(choice) for choice in choices])
            )
        elif isinstance(choices.low, int) and isinstance(choices.high, int):
            values[key] = suggester.suggest_int(key, choices.low, choices.high, log=choices.log)
        else:
            values[key] = suggester.suggest_float(key, float(choices.low), float(choices.high), log=choices.log)
    return values


def _is_active(section: Sweep, key: str, values: Mapping[str, Any]) -> bool:
    condition = section.only_if.get(key, {})
    return all(other in values and values[other] == value for other, value in condition.items())


def encode_choice(value: Any) -> Any:
    """Return a choice in a form that Optuna can store: lists become JSON texts, other values stay as they are."""
    return json.dumps(value) if isinstance(value, list) else value


def decode_choice(value: Any) -> Any:
    """Return the value of a choice that Optuna stores: JSON of a list becomes a list."""
    return json.loads(value) if isinstance(value, str) and value.startswith("[") else value


def expand_grid(section: Sweep) -> list[dict[str, Any]]:
    """Return every combination of a space of lists once, each as settings by name."""
    return list(_combine(section, list(section.space), {}))


def _combine(section: Sweep, keys: list[str], values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if not keys:
        yield values
        return
    key, rest = keys[0], keys[1:]
    choices = section.space[key]
    if isinstance(choices, SweepRange) or not _is_active(section, key, values):
        yield from _combine(section, rest, values)
        return
    for choice in choices:
        yield from _combine(section, rest, {**values, key: choice})


def list_test_values(section: Sweep) -> list[dict[str, Any]]:
    """Return a few combinations in which every bound and every choice of the space occurs, to be validated against the schema."""
    columns = {
        key: [values.low, values.high] if isinstance(values, SweepRange) else list(values)
        for key, values in section.space.items()
    }
    free = {key: values for key, values in columns.items() if key not in section.only_if}
    longest = max(len(values) for values in free.values())
    rows = [{key: values[min(row, len(values) - 1)] for key, values in free.items()} for row in range(longest)]
    for key in section.only_if:
        rows += [{**_conditions_of(section, key), key: value} for value in columns[key]]
    return rows


def _conditions_of(section: Sweep, key: str) -> dict[str, Any]:
    """Return the values of other settings under which ``key`` is varied, including their own conditions, in the order of the space."""
    result: dict[str, Any] = {}
    for other, value in section.only_if.get(key, {}).items():
        result |= {**_conditions_of(section, other), other: value}
    return result


def current_values(section: Sweep, tree: Mapping[str, Any], choices: Mapping[str, str]) -> dict[str, Any]:
    """Return the current value of each setting of the search space, by key; values outside the space are left out.

    ``tree``: the composed configuration; ``choices``: the chosen file of each group.
    """
    values: dict[str, Any] = {}
    for key, allowed in section.space.items():
        path = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
        if key in choices:
            value: Any = choices[key]
        elif has_path(tree, path):
            value = get_at(tree, path)
        else:
            continue
        if _is_active(section, key, values) and _contains(allowed, value):
            values[key] = value
    return values


def _contains(allowed: SweepRange | Sequence[Any], value: Any) -> bool:
    if not isinstance(allowed, SweepRange):
        return value in allowed
    is_integer = isinstance(allowed.low, int) and isinstance(allowed.high, int)
    kind = int if is_integer else int | float
    return isinstance(value, kind) and not isinstance(value, bool) and allowed.low <= value <= allowed.high


def format_override(key: str, value: Any) -> str:
    """Return the override ``key=value`` in Hydra's grammar."""
    return f"{key}={_format(value)}"


def _format(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(_format(item) for item in value)}]"
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.match(value) and value.lower() not in _LITERALS:
        return value
    escaped = re.sub(r"(\\*)('|$)", lambda result: 2 * result[1] + ("\\'" if result[2] else ""), value)
    return f"'{escaped}'"  # Hydra takes a backslash literally, except before a quote

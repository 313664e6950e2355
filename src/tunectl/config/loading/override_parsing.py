"""Overrides: their origin, whether they choose a file or set a value, and how they are applied to a tree."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tunectl.config.loading.provenance import KeyPath, Provenance, ValueOrigin, to_dotted_key

_KEY = re.compile(r"^[A-Za-z_][\w-]*(\.[\w-]+)*$")
_GROUP = re.compile(r"^[A-Za-z_][\w/-]*$")


@dataclass(frozen=True, slots=True)
class Override:
    """An override ``key=value`` or ``group=option``, and where it was given."""

    text: str
    """``key=value`` or ``group=option``."""
    origin: ValueOrigin

    @staticmethod
    def from_cli(text: str) -> Override:
        """Return the override that was typed as ``text`` on the command line."""
        return Override(text, ValueOrigin(override=text))


@dataclass(frozen=True, slots=True)
class OverrideError:
    """One mistake in an override or recipe. Where ``suggest`` is set, validation adds the nearest valid name."""

    path: KeyPath
    text: str
    suggest: bool = False


def list_options(conf: Path, group: str) -> list[str]:
    """Return the names that ``group=`` accepts, sorted."""
    return sorted(file.stem for file in (conf / group).glob("*.yaml"))


def classify_overrides(
    conf: Path, overrides: Sequence[Override], problems: list[OverrideError], parse: Callable[[str], Any]
) -> tuple[dict[str, Override], list[tuple[Override, KeyPath, Any]]]:
    """Return (override per group that chooses a file, [(override, key path, value)] in order); mistakes go to ``problems``.

    ``parse`` converts the text of a value, or raises ValueError.
    """
    groups: dict[str, Override] = {}
    values: list[tuple[Override, KeyPath, Any]] = []
    for override in overrides:
        key, equals, text = (part.strip() for part in override.text.partition("="))
        if not override.text.isascii() and _has_surrogates(override.text):
            problems.append(OverrideError((), f"override {override.text!a}: not UTF-8 text"))
        elif key[:1] in {"+", "~"}:
            problems.append(_reject_prefix(override, key))
        elif not equals or not (_KEY.match(key) or _GROUP.match(key)):
            problems.append(OverrideError((), f"{_who(override)}: not of the form key=value, for example seed=17"))
        elif (conf / key).is_dir():
            problem = _bad_choice(conf, override, key, text)
            if problem is None:
                groups[key] = override
            else:
                problems.append(problem)
        else:
            path = _path(key)
            try:
                values.append((override, path, parse(text)))
            except ValueError as error:
                problems.append(OverrideError(path, f"{_who(override)}: {error}"))
    return groups, values


def _has_surrogates(text: str) -> bool:
    """Return whether the text has bytes that are not UTF-8, which Python keeps as lone surrogates."""
    return any(0xD800 <= ord(letter) <= 0xDFFF for letter in text)


def _reject_prefix(override: Override, key: str) -> OverrideError:
    bare = key.lstrip("+~")
    path = _path(bare) if _KEY.match(bare) else ()
    if key.startswith("~"):
        text = "settings cannot be removed; set it to null, or choose another file of its group"
        return OverrideError(path, f"{_who(override)}: {text}")
    text = "a key takes no plus sign, because every setting has its place in conf/ already; leave it out"
    return OverrideError(path, f"{_who(override)}: {text}", suggest=True)


def _bad_choice(conf: Path, override: Override, group: str, option: str) -> OverrideError | None:
    options = list_options(conf, group)
    if option in options or (option == "null" and group == "experiment"):
        return None
    if option.startswith(("{", "[")):
        example = f"{group}.<setting>=<value> sets a value"
        return OverrideError((group,), f"{_who(override)}: chooses a file of {conf.name}/{group}; {example}")
    return OverrideError((group,), f"{_who(override)}: {unknown_option(conf, group, option, options)}")


def unknown_option(conf: Path, group: str, option: str, options: Sequence[str]) -> str:
    """Return the error message for an ``option`` that a ``group`` does not have; it names the existing options and the nearest one."""
    near = get_close_matches(option, options, 1, 0.5)
    guess = f"; did you mean {group}={near[0]}?" if near else ""
    return f"{conf.name}/{group} has no option {option}; there are {', '.join(options)}{guess}"


def _who(override: Override) -> str:
    return f"{override.text} ({override.origin})" if override.origin.file else f"override {override.text}"


def _path(key: str) -> KeyPath:
    return tuple(int(part) if part.isdecimal() else part for part in key.split("."))


def apply_override(
    raw: dict[str, Any],
    origins: Provenance,
    override: Override,
    path: KeyPath,
    value: Any,
    problems: list[OverrideError],
) -> None:
    """Set ``value`` at ``path`` in ``raw``. A key that is not there yet is created: validation decides whether it may exist."""
    node: Any = raw
    prefix: KeyPath = ()
    for part, after in zip(path, (*path[1:], None), strict=True):
        if isinstance(node, list) and not (isinstance(part, int) and 0 <= part < len(node)):
            text = f"{to_dotted_key(prefix)} is a list of {len(node)}; it has no entry {part} (the first is 0)"
            problems.append(OverrideError(path, f"{_who(override)}: {text}"))
            return
        key: Any = part if isinstance(node, list) else str(part)
        prefix, inner = (*prefix, key), node[key] if isinstance(node, list) else node.get(key)
        if after is None and isinstance(value, dict) and isinstance(inner, dict):
            for name, below in value.items():
                apply_override(raw, origins, override, (*prefix, name), below, problems)
        elif after is None:
            node[key] = value
            origins.set(prefix, value, override.origin)
        elif isinstance(inner, dict | list):
            node = inner
        elif inner is None:
            node[key] = {}
            origins.set(prefix, {}, override.origin)
            node = node[key]
        else:
            problems.append(
                OverrideError(path, f"{_who(override)}: {to_dotted_key(prefix)} is a single value; it holds no {after}")
            )
            return

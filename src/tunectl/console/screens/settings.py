"""Screens Settings and Keys: the composed tree, each value with the file and line that set it, allowed values and meaning; and the keys."""

from __future__ import annotations

import platform
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, field

from tunectl.access import api_keys
from tunectl.access.scopes import SCOPES
from tunectl.console.paging import find_page_start
from tunectl.console.read_context import ProblemList, list_setting_files, stamp_files
from tunectl.core.distribution import DISTRIBUTION
from tunectl.core.url_credentials import hide_credentials
from tunectl.pipeline import system_check

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import BaseModel

    from tunectl.config.loading.checks import ResolvedConfig
    from tunectl.config.loading.provenance import KeyPath
    from tunectl.console.read_context import ReadContext

PAGE_SIZE: Final = 100
PACKAGES: Final = (DISTRIBUTION, "torch", "transformers", "trl", "dvc", "bentoml", "openvino", "vllm")
"""Packages whose versions are shown, where they are installed."""


class SettingRow(Struct, frozen=True):
    """One setting of the composed configuration: value, file and line of origin, allowed values, meaning."""

    key: str
    """Key as in an override."""
    value: str
    """Value as JSON."""
    origin: str
    """FILE:LINE, or the override."""
    override: bool
    """Whether it is a recorded override, which is replayed at each run."""
    allowed: str
    meaning: str


class SettingSection(Struct, frozen=True):
    """A section of the configuration, and the number of its settings that match the search."""

    name: str
    count: int


class SettingsScreen(Struct, frozen=True):
    """Content of the screen Settings: one page of the settings that match the search."""

    rows: list[SettingRow] = field(default_factory=list)
    total: int = 0
    matching: int = 0
    at: int = 0
    """Index of the first row among the matching settings."""
    size: int = PAGE_SIZE
    """Rows per page."""
    sections: list[SettingSection] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    """Recorded overrides, which are replayed at each run."""
    query: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    """Version of Python and of each installed package that matters."""
    disk_free: int = 0
    """Free bytes on the disk of the project."""
    disk_advice: str = ""
    """What to do; empty where enough is free."""
    problems: dict[str, str] = field(default_factory=dict)


def read_settings(context: ReadContext, query: Mapping[str, str]) -> SettingsScreen:
    """Return the composed settings. ``section``: only this one. ``q``: text in key, value or meaning. ``changed``: 1, only overrides."""
    problems = ProblemList()
    picked = {name: query[name] for name in ("section", "q", "changed", "at") if query.get(name)}
    rows: Sequence[SettingRow] = problems.attempt("settings", lambda: _load_rows(context), ())
    matches = [row for row in rows if _passes(row, picked)]
    counts = Counter(row.key.partition(".")[0] for row in matches)
    if "section" in picked:
        matches = [row for row in matches if row.key.partition(".")[0] == picked["section"]]
    at = find_page_start(picked.get("at", ""), PAGE_SIZE, len(matches))
    free = problems.attempt("disk", lambda: shutil.disk_usage(context.layout.root).free, 0)
    return SettingsScreen(
        rows=list(matches[at : at + PAGE_SIZE]),
        total=len(rows),
        matching=len(matches),
        at=at,
        sections=[SettingSection(name, count) for name, count in counts.items()],
        overrides=[row.origin.removeprefix("override ") for row in rows if row.override],
        query=picked,
        versions={"Python": platform.python_version(), **_list_versions()},
        disk_free=free,
        disk_advice=system_check.check_disk(free).advice,
        problems=problems.problems,
    )


def _list_versions() -> dict[str, str]:
    versions = {name: system_check.find_version(name) for name in PACKAGES}
    return {name: version for name, version in versions.items() if version is not None}


def _passes(row: SettingRow, picked: Mapping[str, str]) -> bool:
    if picked.get("changed") and not row.override:
        return False
    text = picked.get("q", "").casefold()
    return not text or any(text in part.casefold() for part in (row.key, row.value, row.meaning, row.origin))


def _load_rows(context: ReadContext) -> Sequence[SettingRow]:
    stamp = stamp_files(list_setting_files(context.layout))
    return context.cache.get("setting rows", stamp, lambda: tuple(_list_rows(context.load_config())))


def _list_rows(resolved: ResolvedConfig) -> Iterator[SettingRow]:
    from tunectl.config.loading import provenance

    for path, value in provenance.iter_leaves(resolved.composition.tree):
        origin = resolved.composition.origins.find(path)
        allowed, meaning = describe_setting(resolved.root, path)
        yield SettingRow(
            provenance.to_dotted_key(path),
            provenance.format_value(value),
            "" if origin is None else hide_credentials(str(origin)),
            origin is not None and bool(origin.override),
            allowed,
            meaning,
        )


def describe_setting(root: BaseModel, path: KeyPath) -> tuple[str, str]:
    """Return (allowed values, meaning) of the setting at ``path``, from the class of its section; allowed values are empty where any are."""
    from pydantic import BaseModel as Section

    from tunectl.config.loading import type_descriptions

    here: Any = root
    allowed, meaning = "", ""
    for part in path:
        if isinstance(here, Section) and "root" in type(here).model_fields and part not in type(here).model_fields:
            here = here.root  # type: ignore[attr-defined]  # a root model has exactly this field
        if isinstance(here, Section):
            info = type(here).model_fields.get(str(part))
            if info is None:
                return allowed, meaning
            allowed = type_descriptions.describe_type(type_descriptions.of_field(info))
            meaning = _read_field_docs(type(here)).get(str(part), "") or meaning
            here = getattr(here, str(part))
        elif isinstance(here, Mapping):
            here, allowed = here.get(part), ""
        elif isinstance(here, list | tuple) and isinstance(part, int) and part < len(here):
            here, allowed = here[part], ""
        else:
            return "", meaning
    return allowed, meaning


@cache
def _read_field_docs(section: type[BaseModel]) -> dict[str, str]:
    """Return the prose of a section's fields: it is parsed from the source of the class, once."""
    from tunectl.config.loading.json_schema_export import field_docs

    return field_docs(section)


class KeyRow(Struct, frozen=True):
    """One entry of the keys file: name, scopes and limits; it has the key's hash, not the key."""

    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    enabled: bool
    refused: str
    """Why it is refused now; empty where it is accepted."""
    per_minute: int | None
    max_concurrency: int | None
    tokens_per_minute: int | None
    fingerprint: str
    """First digits of its hash."""


class KeysScreen(Struct, frozen=True):
    """Content of the screen Keys: the entries of the keys file."""

    file: str = ""
    """File of keys; empty: the settings name none."""
    exists: bool = False
    keys: list[KeyRow] = field(default_factory=list)
    scopes: list[str] = field(default_factory=list)
    """Scopes that a key can have."""
    problems: dict[str, str] = field(default_factory=dict)


def read_keys(context: ReadContext, query: Mapping[str, str]) -> KeysScreen:  # noqa: ARG001 - every screen is read alike
    """Return names, scopes and states of the keys file; it does not contain the keys themselves."""
    problems = ProblemList()
    path = problems.attempt("settings", context.find_keys_file, None)
    empty = KeysScreen(scopes=list(SCOPES), problems=problems.problems)
    if path is None:
        return empty
    return problems.attempt("keys", lambda: describe_keys(path, context.layout.root, context.now), empty)


def describe_keys(path: Path, root: Path, now: datetime) -> KeysScreen:
    """Return the entries of the keys file ``path``; whether one is refused is as of ``now``.

    Raises  DataError where it is not a valid keys file.
    """
    keys = [
        KeyRow(
            key.name,
            list(key.scopes),
            key.created_at,
            key.expires_at,
            key.enabled,
            api_keys.explain_refusal(key, now) or "",
            key.per_minute,
            key.max_concurrency,
            key.tokens_per_minute,
            key.sha256[:12],
        )
        for key in api_keys.read(path)
    ]
    file = str(path.relative_to(root) if path.is_relative_to(root) else path)
    return KeysScreen(file, path.is_file(), keys, list(SCOPES))

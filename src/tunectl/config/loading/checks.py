"""Check the configuration for every command: a composed tree becomes a frozen ``TunectlConfig``, or one error that lists every mistake."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

import msgspec
from pydantic import BaseModel, ValidationError

from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import override_file
from tunectl.config.loading.compose import NOTHING, ComposedConfig, compose
from tunectl.config.loading.override_parsing import Override
from tunectl.config.loading.provenance import KeyPath, format_value, iter_leaves, to_dotted_key
from tunectl.config.loading.suggestions import closest_setting, get_at, suggest_for_plus_override
from tunectl.config.loading.type_descriptions import (
    SchemaLocation,
    TypeInfo,
    describe_type,
    resolve_location,
    union_members,
)
from tunectl.core.errors import ConfigError

if TYPE_CHECKING:
    from tunectl.config.schema.root import TunectlConfig

M = TypeVar("M", bound=BaseModel)
_LISTED = 14
_MANY_MISSING = 4


@dataclass(frozen=True, slots=True)
class ResolvedConfig:
    """A validated configuration, with the composed tree and origins that it was made from."""

    root: TunectlConfig
    composition: ComposedConfig


@dataclass(slots=True)
class _ConfigIssue:
    path: KeyPath
    kind: str
    text: str


def load_config(layout: ProjectPaths, overrides: Sequence[Override] = ()) -> ResolvedConfig:
    """Return the validated configuration of a project's ``conf/`` with ``overrides`` applied.

    Raises  ConfigError with every mistake at once; UsageError where there is no ``conf/config.yaml``.
    """
    from tunectl.config.schema.root import TunectlConfig

    composition = compose(layout.conf, overrides)
    try:
        return ResolvedConfig(validate_config(TunectlConfig, composition), composition)
    except ConfigError as error:
        recorded = [override.text for override in overrides if override.origin.file]
        if not recorded:
            raise
        replay_note = f"replayed from earlier runs: {' '.join(recorded)}; tunectl repro --reset-overrides forgets them"
        raise ConfigError(error.problems, hint=f"{error.hint}\n  {replay_note}") from error


def load_project_config(layout: ProjectPaths, typed: Sequence[str] = ()) -> ResolvedConfig:
    """Return the validated configuration of ``conf/`` with the recorded overrides; ``typed`` ones (``key=value``) win.

    Raises  ConfigError with every mistake at once; UsageError where there is no ``conf/config.yaml``.
    """
    recorded = override_file.load_overrides(layout)
    return load_config(layout, override_file.merge_overrides(recorded, typed) if typed else recorded)


def validate_config(schema: type[M], composition: ComposedConfig) -> M:
    """Return the composed tree as an instance of ``schema``.

    Raises  ConfigError with all mistakes of composing and of the schema.
    """
    reported_paths = {problem.path for problem in composition.problems if problem.path}
    lines = [line for line in _list_composition_problems(schema, composition) if line]
    settings = None
    mistakes = [*_not_finite(composition), *_check_key_types(composition)]  # JSON has no infinity: it would become null
    reported_paths |= {mistake.path for mistake in mistakes}
    lines += [mistake.text for mistake in mistakes]
    try:
        settings = schema.model_validate_json(msgspec.json.encode(_stringify_keys(composition.tree)), strict=True)
    except ValidationError as error:
        lines += [
            mistake.text
            for mistake in _list_issues(schema, composition, error)
            if not _is_already_reported(mistake, reported_paths)
        ]
    if settings is None or lines:
        count = f"{len(lines)} mistakes; " if len(lines) > 1 else ""
        raise ConfigError(lines, hint=count + NOTHING)
    return settings


def _is_already_reported(mistake: _ConfigIssue, reported_paths: set[KeyPath]) -> bool:
    """Return whether composing has reported the mistake already: at the same key, or (an absent section) above it."""
    return mistake.path in reported_paths or (mistake.kind == "missing" and mistake.path[:1] in reported_paths)


def _list_composition_problems(schema: type[BaseModel], composition: ComposedConfig) -> Iterator[str]:
    for problem in composition.problems:
        yield problem.text + (
            suggest_for_plus_override(schema, composition.tree, problem.path)
            if problem.suggest and problem.path
            else ""
        )


def _not_finite(composition: ComposedConfig) -> Iterator[_ConfigIssue]:
    for path, value in iter_leaves(composition.tree):
        if isinstance(value, float) and not math.isfinite(value):
            yield _ConfigIssue(path, "value", f"{_head(composition, path, value)}: must be a finite number")


def _check_key_types(composition: ComposedConfig) -> Iterator[_ConfigIssue]:
    """Yield keys that YAML does not read as text, such as a bare yes."""
    for path, key in _find_non_text_keys(composition.tree, ()):
        origin = composition.origins.find(path) or composition.origins.file_of(path)
        where = f" ({origin})" if origin else ""
        reason = "YAML reads yes, no, on and off as true and false" if isinstance(key, bool) else "a name is text"
        text = f"{to_dotted_key(path)}{where}: the name {format_value(key)} is no text: {reason}; put it in quotes"
        yield _ConfigIssue((*path, str(key)), "key", text)


def _find_non_text_keys(tree: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if key is None or isinstance(key, bool | bytes):
            yield path, key
        yield from _find_non_text_keys(value, (*path, key))


def _stringify_keys(tree: Any) -> Any:
    """Return the tree with text for every key; a number is its digits."""
    if isinstance(tree, list):
        return [_stringify_keys(item) for item in tree]
    return {str(key): _stringify_keys(value) for key, value in tree.items()} if isinstance(tree, dict) else tree


def _list_issues(
    schema: type[BaseModel], composition: ComposedConfig, error: ValidationError
) -> Iterator[_ConfigIssue]:
    """Yield one mistake for each error; a misspelled key and the missing key that was meant are one."""
    result = [(resolve_location(schema, item["loc"]), item) for item in error.errors(include_url=False)]
    missing = {location.path: location for location, item in result if item["type"] == "missing"}
    unknown: dict[KeyPath, str] = {}
    for location, item in result:
        if item["type"] == "extra_forbidden":
            near = (
                ""
                if _find_union_tag(location)
                else closest_setting(schema, composition.tree, location.path, sorted(missing, key=to_dotted_key))
            )
            missing = {path: other for path, other in missing.items() if to_dotted_key(path) != near}
            unknown[location.path] = _unknown(composition, location, near)
    summaries = _summarize_missing(composition, missing)
    key_paths: set[KeyPath] = set()
    for location, item in result:
        if location.path in key_paths or (item["type"] == "missing" and location.path not in missing):
            continue
        key_paths.add(location.path)
        if item["type"] == "missing" and location.path[:-1] in summaries:
            if location.path[:-1] not in key_paths:
                yield _ConfigIssue(location.path[:-1], "missing", summaries[location.path[:-1]])
            key_paths.add(location.path[:-1])
            continue
        text = unknown.get(location.path) or _text(schema, composition, location, item)
        yield _ConfigIssue(location.path, item["type"], text)


def _summarize_missing(composition: ComposedConfig, missing: dict[KeyPath, SchemaLocation]) -> dict[KeyPath, str]:
    """Return one line for a section that lacks many settings: most likely another file of its group is needed."""
    above: dict[KeyPath, list[SchemaLocation]] = {}
    for path, location in missing.items():
        above.setdefault(path[:-1], []).append(location)
    result = {}
    for path, locations in above.items():
        if path and len(locations) >= _MANY_MISSING:
            option = composition.choices.get(str(path[0]))
            origin = composition.origins.file_of(path) or f"conf/{path[0]}/{option}.yaml"
            owner = locations[0].owner
            tag = f" where {_tag_of(owner)}" if owner is not None and _tag_of(owner) else ""
            names = ", ".join(str(location.path[-1]) for location in locations)
            text = f"{to_dotted_key(path)} ({origin}): {len(locations)} settings are missing{tag}: {names}"
            result[path] = f"{text}; choose a file of conf/{path[0]} that has them: {path[0]}=<file>"
    return result


def _text(schema: type[BaseModel], composition: ComposedConfig, location: SchemaLocation, item: Any) -> str:
    kind = item["type"]
    if kind == "missing":
        file = composition.origins.file_of(location.path[:-1]) if len(location.path) > 1 else "conf/config.yaml"
        where = f" ({file})" if file else ""
        return f"{to_dotted_key(location.path)}: missing{where}; must be {describe_type(location.shape)}"
    value = get_at(composition.tree, location.path)
    head = _head(composition, location.path, value)
    if kind in {"value_error", "assertion_error"}:
        reason = str(item.get("ctx", {}).get("error", item["msg"]))
        return f"{_head(composition, location.path, value, show=not isinstance(value, dict | list))}: {reason}"
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        return _tag(composition, location, value)
    shape = location.shape
    parent = resolve_location(schema, _without_last(item["loc"], location)) if len(location.shape.kinds) == 1 else None
    if parent is not None and parent.path == location.path:
        shape = parent.shape  # a plain union: name all of its members
    guess = _close_value(value, shape)
    return f"{head}: must be {describe_type(shape)}{guess}"


def _without_last(location: Sequence[str | int], schema_location: SchemaLocation) -> Sequence[str | int]:
    return location[:-1] if len(location) > len(schema_location.path) else location


def _tag(composition: ComposedConfig, location: SchemaLocation, value: Any) -> str:
    name = str(location.shape.discriminator)
    tags = list(union_members(location.shape))
    path = (*location.path, name)
    if not isinstance(value, dict):
        return f"{_head(composition, location.path, value)}: must be {describe_type(location.shape)}"
    if name not in value:
        file = composition.origins.file_of(location.path)
        return f"{to_dotted_key(path)}: missing{f' ({file})' if file else ''}; must be one of {', '.join(tags)}"
    tag = str(value[name])
    near = get_close_matches(tag, tags, 1)
    guess = f"; did you mean {near[0]}?" if near else ""
    return f"{_head(composition, path, value[name])}: must be one of {', '.join(tags)}{guess}"


def _close_value(value: Any, shape: TypeInfo) -> str:
    choices = [str(item) for kind in shape.kinds if get_origin(kind) is Literal for item in get_args(kind)]
    near = get_close_matches(str(value), choices, 1) if choices else []
    return f"; did you mean {near[0]}?" if near else ""


def _find_union_tag(location: SchemaLocation) -> str:
    """Return the tag of another member of a tagged union to which an unknown key belongs; empty where there is none."""
    key = str(location.path[-1])
    return next((_tag_of(other) for other in location.siblings if key in other.model_fields), "")


def _unknown(composition: ComposedConfig, location: SchemaLocation, near: str) -> str:
    value = get_at(composition.tree, location.path)
    head = _head(composition, location.path, value, show=not isinstance(value, dict | list))
    if location.owner is not None and _find_union_tag(location):
        return f"{head}: no such setting where {_tag_of(location.owner)}, only where {_find_union_tag(location)}"
    if near:
        return f"{head}: no such setting; did you mean {near}?"
    names = list(location.owner.model_fields) if location.owner is not None else []
    above = to_dotted_key(location.path[:-1]) or "conf/"
    more = ", …" if len(names) > _LISTED else ""
    return f"{head}: no such setting; {above} has {', '.join(names[:_LISTED])}{more}"


def _tag_of(model: type[BaseModel]) -> str:
    """Return ``method is wheel`` for a member of a tagged union, and an empty text for any other section."""
    for name, info in model.model_fields.items():
        if get_origin(info.annotation) is Literal and len(get_args(info.annotation)) == 1:
            return f"{name} is {get_args(info.annotation)[0]}"
    return ""


def _head(composition: ComposedConfig, path: KeyPath, value: Any, *, show: bool = True) -> str:
    origin = composition.origins.find(path)
    value_text = f" = {format_value(value)}" if show else ""
    return f"{to_dotted_key(path) or 'conf/'}{value_text}{f' ({origin})' if origin else ''}"

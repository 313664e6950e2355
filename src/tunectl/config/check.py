"""The gate of every command: a composed tree becomes a frozen ``Root``, or one error that lists every mistake."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

import msgspec
from pydantic import BaseModel, ValidationError

from tunectl.artifacts.layout import Layout
from tunectl.config.compose import NOTHING, Composition, compose
from tunectl.config.given import Given
from tunectl.config.nearest import at, guess, nearest
from tunectl.config.origins import Path_, dotted, leaves, short
from tunectl.config.shape import Place, Shape, locate, tags, words
from tunectl.core.errors import ConfigError

if TYPE_CHECKING:
    from tunectl.config.root import Root

M = TypeVar("M", bound=BaseModel)
_LISTED = 14
_CROWD = 4


@dataclass(frozen=True, slots=True)
class Checked:
    """A configuration without mistakes."""

    root: Root
    composition: Composition


@dataclass(slots=True)
class _Mistake:
    path: Path_
    kind: str
    text: str


def load(layout: Layout, overrides: Sequence[Given] = ()) -> Checked:
    """Compose a project's ``conf/`` and check it.

    Raises  ConfigError with every mistake at once; UsageError where there is no ``conf/config.yaml``.
    """
    from tunectl.config.root import Root

    composition = compose(layout.conf, overrides)
    try:
        return Checked(validate(Root, composition), composition)
    except ConfigError as error:
        recorded = [given.text for given in overrides if given.origin.file]
        if not recorded:
            raise
        replayed = f"replayed from earlier runs: {' '.join(recorded)}; tunectl repro --fresh forgets them"
        raise ConfigError(error.problems, hint=f"{error.hint}\n  {replayed}") from error


def validate(schema: type[M], composition: Composition) -> M:
    """The tree as ``schema``, or every mistake of composing and of the schema in one ConfigError."""
    noted = {problem.path for problem in composition.problems if problem.path}
    lines = [line for line in _composing(schema, composition) if line]
    settings = None
    mistakes = [*_not_finite(composition), *_not_named(composition)]  # JSON has no infinity: it would turn into null
    noted |= {mistake.path for mistake in mistakes}
    lines += [mistake.text for mistake in mistakes]
    try:
        settings = schema.model_validate_json(msgspec.json.encode(_named(composition.tree)), strict=True)
    except ValidationError as error:
        lines += [mistake.text for mistake in _mistakes(schema, composition, error) if not _covered(mistake, noted)]
    if settings is None or lines:
        count = f"{len(lines)} mistakes; " if len(lines) > 1 else ""
        raise ConfigError(lines, hint=count + NOTHING)
    return settings


def _covered(mistake: _Mistake, noted: set[Path_]) -> bool:
    """Whether composing has said it already: at the same key, or (a section that is absent) above it."""
    return mistake.path in noted or (mistake.kind == "missing" and mistake.path[:1] in noted)


def _composing(schema: type[BaseModel], composition: Composition) -> Iterator[str]:
    for problem in composition.problems:
        yield problem.text + (guess(schema, composition.tree, problem.path) if problem.suggest and problem.path else "")


def _not_finite(composition: Composition) -> Iterator[_Mistake]:
    for path, value in leaves(composition.tree):
        if isinstance(value, float) and not math.isfinite(value):
            yield _Mistake(path, "value", f"{_head(composition, path, value)}: must be a finite number")


def _not_named(composition: Composition) -> Iterator[_Mistake]:
    """Keys that YAML does not read as text, such as a bare yes."""
    for path, key in _odd_keys(composition.tree, ()):
        origin = composition.origins.at(path) or composition.origins.file_of(path)
        where = f" ({origin})" if origin else ""
        reason = "YAML reads yes, no, on and off as true and false" if isinstance(key, bool) else "a name is text"
        text = f"{dotted(path)}{where}: the name {short(key)} is no text: {reason}; put it in quotes"
        yield _Mistake((*path, str(key)), "key", text)


def _odd_keys(tree: Any, path: Path_) -> Iterator[tuple[Path_, Any]]:
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if key is None or isinstance(key, bool | bytes):
            yield path, key
        yield from _odd_keys(value, (*path, key))


def _named(tree: Any) -> Any:
    """The tree with text for every key; a number is its digits."""
    if isinstance(tree, list):
        return [_named(item) for item in tree]
    return {str(key): _named(value) for key, value in tree.items()} if isinstance(tree, dict) else tree


def _mistakes(schema: type[BaseModel], composition: Composition, error: ValidationError) -> Iterator[_Mistake]:
    """One mistake for each thing that is wrong; a misspelt key and the key that it was meant to be are one."""
    found = [(locate(schema, item["loc"]), item) for item in error.errors(include_url=False)]
    missing = {place.path: place for place, item in found if item["type"] == "missing"}
    unknown: dict[Path_, str] = {}
    for place, item in found:
        if item["type"] == "extra_forbidden":
            near = "" if _foreign(place) else nearest(schema, composition.tree, place.path, sorted(missing, key=dotted))
            missing = {path: other for path, other in missing.items() if dotted(path) != near}
            unknown[place.path] = _unknown(composition, place, near)
    crowds = _crowds(composition, missing)
    seen: set[Path_] = set()
    for place, item in found:
        if place.path in seen or (item["type"] == "missing" and place.path not in missing):
            continue
        seen.add(place.path)
        if item["type"] == "missing" and place.path[:-1] in crowds:
            if place.path[:-1] not in seen:
                yield _Mistake(place.path[:-1], "missing", crowds[place.path[:-1]])
            seen.add(place.path[:-1])
            continue
        text = unknown.get(place.path) or _text(schema, composition, place, item)
        yield _Mistake(place.path, item["type"], text)


def _crowds(composition: Composition, missing: dict[Path_, Place]) -> dict[Path_, str]:
    """One line for a section that lacks many settings: most likely another file of its group is wanted."""
    above: dict[Path_, list[Place]] = {}
    for path, place in missing.items():
        above.setdefault(path[:-1], []).append(place)
    found = {}
    for path, places in above.items():
        if path and len(places) >= _CROWD:
            option = composition.choices.get(str(path[0]))
            origin = composition.origins.file_of(path) or f"conf/{path[0]}/{option}.yaml"
            owner = places[0].owner
            tag = f" where {_tag_of(owner)}" if owner is not None and _tag_of(owner) else ""
            names = ", ".join(str(place.path[-1]) for place in places)
            text = f"{dotted(path)} ({origin}): {len(places)} settings are missing{tag}: {names}"
            found[path] = f"{text}; choose a file of conf/{path[0]} that has them: {path[0]}=<file>"
    return found


def _text(schema: type[BaseModel], composition: Composition, place: Place, item: Any) -> str:
    kind = item["type"]
    if kind == "missing":
        file = composition.origins.file_of(place.path[:-1]) if len(place.path) > 1 else "conf/config.yaml"
        where = f" ({file})" if file else ""
        return f"{dotted(place.path)}: missing{where}; must be {words(place.shape)}"
    value = at(composition.tree, place.path)
    head = _head(composition, place.path, value)
    if kind in {"value_error", "assertion_error"}:
        reason = str(item.get("ctx", {}).get("error", item["msg"]))
        return f"{_head(composition, place.path, value, show=not isinstance(value, dict | list))}: {reason}"
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        return _tag(composition, place, value)
    shape = place.shape
    parent = locate(schema, _without_last(item["loc"], place)) if len(place.shape.kinds) == 1 else None
    if parent is not None and parent.path == place.path:
        shape = parent.shape  # a plain union: name all of its members
    guess = _close_value(value, shape)
    return f"{head}: must be {words(shape)}{guess}"


def _without_last(location: Sequence[str | int], place: Place) -> Sequence[str | int]:
    return location[:-1] if len(location) > len(place.path) else location


def _tag(composition: Composition, place: Place, value: Any) -> str:
    name = str(place.shape.discriminator)
    known = list(tags(place.shape))
    path = (*place.path, name)
    if not isinstance(value, dict):
        return f"{_head(composition, place.path, value)}: must be {words(place.shape)}"
    if name not in value:
        file = composition.origins.file_of(place.path)
        return f"{dotted(path)}: missing{f' ({file})' if file else ''}; must be one of {', '.join(known)}"
    given = str(value[name])
    near = get_close_matches(given, known, 1)
    guess = f"; did you mean {near[0]}?" if near else ""
    return f"{_head(composition, path, value[name])}: must be one of {', '.join(known)}{guess}"


def _close_value(value: Any, shape: Shape) -> str:
    known = [str(item) for kind in shape.kinds if get_origin(kind) is Literal for item in get_args(kind)]
    near = get_close_matches(str(value), known, 1) if known else []
    return f"; did you mean {near[0]}?" if near else ""


def _foreign(place: Place) -> str:
    """Where an unknown key belongs to another member of a tagged union, that member's tag."""
    key = str(place.path[-1])
    return next((_tag_of(other) for other in place.siblings if key in other.model_fields), "")


def _unknown(composition: Composition, place: Place, near: str) -> str:
    value = at(composition.tree, place.path)
    head = _head(composition, place.path, value, show=not isinstance(value, dict | list))
    if place.owner is not None and _foreign(place):
        return f"{head}: no such setting where {_tag_of(place.owner)}, only where {_foreign(place)}"
    if near:
        return f"{head}: no such setting; did you mean {near}?"
    known = list(place.owner.model_fields) if place.owner is not None else []
    above = dotted(place.path[:-1]) or "conf/"
    more = ", …" if len(known) > _LISTED else ""
    return f"{head}: no such setting; {above} has {', '.join(known[:_LISTED])}{more}"


def _tag_of(model: type[BaseModel]) -> str:
    """``method is wheel``, for a member of a tagged union; empty for any other section."""
    for name, info in model.model_fields.items():
        if get_origin(info.annotation) is Literal and len(get_args(info.annotation)) == 1:
            return f"{name} is {get_args(info.annotation)[0]}"
    return ""


def _head(composition: Composition, path: Path_, value: Any, *, show: bool = True) -> str:
    origin = composition.origins.at(path)
    shown = f" = {short(value)}" if show else ""
    return f"{dotted(path) or 'conf/'}{shown}{f' ({origin})' if origin else ''}"

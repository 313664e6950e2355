"""Describe the allowed values of a setting from the annotations of its section class."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Tag
from pydantic.fields import FieldInfo

from tunectl.config.loading.provenance import KeyPath

SIMPLE: dict[Any, str] = {
    bool: "true or false",
    types.NoneType: "null",
    int: "a whole number",
    float: "a number",
    Any: "anything",
    dict: "a mapping",
    list: "a list",
}
"""Names of simple types in messages; any other is a text."""


@dataclass(frozen=True, slots=True)
class TypeInfo:
    """A type annotation of a setting, decomposed into alternatives, bounds and nullability."""

    kinds: tuple[Any, ...]
    """The alternatives; one where there is no choice. Null is not among them."""
    nullable: bool
    metadata: tuple[Any, ...]
    """Bounds and patterns, from the outside in."""
    discriminator: str | None = None


def of_field(info: FieldInfo) -> TypeInfo:
    """Return the decomposed type of one field of a section class."""
    name = info.discriminator if isinstance(info.discriminator, str) else None
    return inspect_type(info.annotation, tuple(info.metadata), name)


def inspect_type(annotation: Any, metadata: tuple[Any, ...] = (), discriminator: str | None = None) -> TypeInfo:
    """Return an annotation decomposed: ``Annotated``, root models, unions and null are resolved."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *extra = get_args(annotation)
            for item in extra:
                if isinstance(item, FieldInfo):
                    metadata += tuple(item.metadata)
                    discriminator = item.discriminator if isinstance(item.discriminator, str) else discriminator
                else:
                    metadata += (item,)
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel) and "root" in annotation.model_fields:
            inner = annotation.model_fields["root"]
            annotation, metadata = inner.annotation, metadata + tuple(inner.metadata)
            discriminator = inner.discriminator if isinstance(inner.discriminator, str) else discriminator
        else:
            break
    if get_origin(annotation) not in {Union, types.UnionType}:
        return TypeInfo((annotation,), annotation is types.NoneType, metadata, discriminator)
    kinds = [kind for kind in get_args(annotation) if kind is not types.NoneType]
    nullable = len(kinds) < len(get_args(annotation))
    if len(kinds) > 1:
        return TypeInfo(tuple(kinds), nullable, metadata, discriminator)
    inner_shape = inspect_type(kinds[0], metadata, discriminator)
    return TypeInfo(
        inner_shape.kinds, nullable or inner_shape.nullable, inner_shape.metadata, inner_shape.discriminator
    )


def union_members(shape: TypeInfo) -> dict[str, type[BaseModel]]:
    """Return the sections of a tagged union by tag (the value of ``method``); empty for any other shape."""
    result: dict[str, type[BaseModel]] = {}
    for kind in shape.kinds:
        bare, *extra = get_args(kind) if get_origin(kind) is Annotated else (kind,)
        model = section(bare)
        if model is None:
            continue
        for item in extra:
            if isinstance(item, Tag):
                result[item.tag] = model
        info = model.model_fields.get(shape.discriminator or "")
        for tag in get_args(info.annotation) if info is not None else ():
            result[str(tag)] = model
    return result


def section(kind: Any) -> type[BaseModel] | None:
    """Return ``kind`` if it is a section class of the schema; None where it is a plain type."""
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


@dataclass(frozen=True, slots=True)
class SchemaLocation:
    """A key path in the configuration, with its type and the section class that declares it."""

    path: KeyPath
    shape: TypeInfo
    owner: type[BaseModel] | None
    """The section class that the last key belongs to."""
    siblings: tuple[type[BaseModel], ...] = ()
    """The other members of the union that ``owner`` was picked from."""


def resolve_location(root: type[BaseModel], location: Sequence[str | int]) -> SchemaLocation:
    """Return the setting at the location (``loc``) of a pydantic validation error, without the union tags, which are no keys."""
    shape, path, owner = TypeInfo((root,), nullable=False, metadata=()), (), None
    siblings: tuple[type[BaseModel], ...] = ()
    current_path: KeyPath = path
    rest = list(location)
    while rest:
        step = rest.pop(0)
        if len(shape.kinds) > 1:
            members = union_members(shape) or {
                model.__name__: model for model in map(section, shape.kinds) if model is not None
            }
            siblings = tuple(members.values())
            picked: Any = members.get(str(step)) or _plain_kind(shape, str(step))
            shape = inspect_type(picked, shape.metadata) if picked is not None else shape
            if picked is None:
                break
            continue
        kind = shape.kinds[0]
        current_path = (*current_path, step)
        model = section(kind)
        if model is not None:
            owner = model
            info = model.model_fields.get(str(step))
            shape = of_field(info) if info is not None else TypeInfo((Any,), nullable=True, metadata=())
            siblings = tuple(other for other in siblings if other is not model) if model in siblings else ()
        else:
            arguments = get_args(kind)
            shape = inspect_type(arguments[-1] if arguments and arguments[-1] is not ... else (arguments or (Any,))[0])
            owner = None
    return SchemaLocation(current_path, shape, owner, siblings)


def _plain_kind(shape: TypeInfo, name: str) -> Any:
    """Return the member that a validation error calls ``name``, for example ``int`` or ``list[str]``."""
    for kind in shape.kinds:
        base = get_origin(kind) or kind
        if name.partition("[")[0] in {getattr(base, "__name__", ""), "constrained-" + getattr(base, "__name__", "")}:
            return kind
    return None


def list_setting_names(shape: TypeInfo, value: Any) -> tuple[str, ...]:
    """Return the setting names that ``value`` may have under ``shape``; those of all members where its tag is unknown."""
    members = union_members(shape)
    if members and isinstance(value, Mapping) and str(value.get(shape.discriminator)) in members:
        return tuple(members[str(value[shape.discriminator])].model_fields)
    result = [model for model in map(section, shape.kinds) if model is not None] or list(members.values())
    return tuple(dict.fromkeys(name for model in result for name in model.model_fields))


def describe_type(shape: TypeInfo) -> str:
    """Return the allowed values as text: ``a whole number from 1 to 256, or null``."""
    members = union_members(shape)
    if members:
        text = f"a section whose {shape.discriminator} is one of {', '.join(members)}"
    else:
        bounds = shape.metadata if len(shape.kinds) == 1 else ()
        text = " or ".join(dict.fromkeys(_describe_kind(kind, bounds) for kind in shape.kinds))
    return f"{text}, or null" if shape.nullable and "null" not in text else text


def _describe_kind(kind: Any, metadata: tuple[Any, ...]) -> str:
    shape = inspect_type(kind, metadata)
    if len(shape.kinds) > 1:
        return describe_type(shape)
    kind, bounds = shape.kinds[0], shape.metadata
    base, inner = get_origin(kind), get_args(kind)
    model = section(kind)
    if base is Literal:
        text = f"one of {', '.join(map(_value, inner))}" if len(inner) > 1 else _value(inner[0])
    elif model is not None:
        text = f"a section with {', '.join(model.model_fields)}"
    elif base in {list, tuple, set, frozenset, Sequence}:
        text = f"a list{_size(bounds)}, each {_describe_kind(inner[0], ())}"
    elif base in {dict, Mapping}:
        text = f"a mapping{_size(bounds)} of names to {_describe_kind(inner[1], ())}"
    else:
        text = SIMPLE.get(kind, "a text") + _range(bounds) + _size(bounds) + _pattern(bounds)
    return text


def _range(metadata: tuple[Any, ...]) -> str:
    low, high = _bound(metadata, "ge"), _bound(metadata, "le")
    above, below = _bound(metadata, "gt"), _bound(metadata, "lt")
    start = f"from {_number(low)}" if low is not None else f"above {_number(above)}" if above is not None else ""
    if high is not None:
        end = (
            f"to {_number(high)}"
            if low is not None
            else f"of at most {_number(high)}"
            if not start
            else f"up to {_number(high)}"
        )
    else:
        end = f"below {_number(below)}" if below is not None else ""
        start = f"of at least {_number(low)}" if low is not None and not end else start
    joined = " and ".join(part for part in (start, end) if part) if end.startswith("below") else f"{start} {end}"
    return f" {joined.strip()}" if joined.strip() else ""


def _size(metadata: tuple[Any, ...]) -> str:
    low, high = _bound(metadata, "min_length"), _bound(metadata, "max_length")
    if low == 1 and high is None:
        return " that is not empty"
    parts = [
        f"at least {_number(low)}" if low is not None else "",
        f"at most {_number(high)}" if high is not None else "",
    ]
    joined = " and ".join(part for part in parts if part)
    return f" of length {joined}" if joined else ""


def _pattern(metadata: tuple[Any, ...]) -> str:
    result = next((item.pattern for item in metadata if getattr(item, "pattern", None)), None)
    return f" that matches {getattr(result, 'pattern', result)}" if result else ""


def _bound(metadata: tuple[Any, ...], name: str) -> Any:
    return next((getattr(item, name) for item in metadata if getattr(item, name, None) is not None), None)


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(value: float) -> str:
    """Return whole numbers in full, so that 1048576 is not shown as 1.04858e+06."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:g}"

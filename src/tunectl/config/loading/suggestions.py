"""Suggest the right name for a wrong one, from the schema and the current tree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel

from tunectl.config.loading.provenance import KeyPath, to_dotted_key
from tunectl.config.loading.type_descriptions import (
    TypeInfo,
    inspect_type,
    list_setting_names,
    of_field,
    section,
    union_members,
)

Model = type[BaseModel]


def suggest_for_plus_override(schema: Model, tree: Any, path: KeyPath) -> str:
    """Return the end of the message about an override with a plus sign (``+sft.epochs=3``).

    It says how to write it if ``tree``, the composed settings, has ``path``; else the nearest setting; empty if none is similar.
    """
    if has_path(tree, path):
        return f"; write {to_dotted_key(path)}=<value>"
    near = closest_setting(schema, tree, path, ())
    return f"; did you mean {near}?" if near else ""


def closest_setting(schema: Model, tree: Any, path: KeyPath, missing: Sequence[KeyPath]) -> str:
    """Return the setting that ``path`` was most likely meant to be, dotted; empty where none is similar.

    A missing sibling comes first, then a very similar sibling, a setting of the same name elsewhere, any similar name.
    """
    key, above = str(path[-1]), path[:-1]
    beside = {str(other[-1]): other for other in missing if other[:-1] == above}
    near = get_close_matches(key, beside, 1, 0.5)
    if near:
        return to_dotted_key(beside[near[0]])
    siblings = [name for name in _names_at(schema, tree, above) if name != key]
    near = get_close_matches(key, siblings, 1, 0.85)
    if near:
        return to_dotted_key((*above, near[0]))
    everywhere = [to_dotted_key(other) for other in _iter_settings(schema, tree)]
    same = [name for name in everywhere if name.rpartition(".")[2] == key]
    if same:
        return min(same, key=len)
    near = get_close_matches(key, siblings, 1, 0.6)
    if near:
        return to_dotted_key((*above, near[0]))
    near = get_close_matches(to_dotted_key(path), everywhere, 1, 0.8)
    return near[0] if near else ""


def _names_at(schema: Model, tree: Any, above: KeyPath) -> tuple[str, ...]:
    branch = _walk(schema, tree, above)
    return list_setting_names(branch, get_at(tree, above)) if branch is not None else ()


def _walk(schema: Model, tree: Any, path: KeyPath) -> TypeInfo | None:
    """Return the shape at a key's path, picking members of tagged unions by the tag in the tree."""
    shape = TypeInfo((schema,), nullable=False, metadata=())
    for depth, part in enumerate(path):
        value = get_at(tree, path[:depth])
        members = union_members(shape)
        model = section(shape.kinds[0]) if len(shape.kinds) == 1 else None
        if members and isinstance(value, dict):
            model = members.get(str(value.get(shape.discriminator)))
        if model is None:
            inner = _item(shape)
            if inner is None:
                return None
            shape = inner
            continue
        info = model.model_fields.get(str(part))
        if info is None:
            return None
        shape = of_field(info)
    return shape


def _item(shape: TypeInfo) -> TypeInfo | None:
    """Return the shape of what a list or mapping holds; None for anything else."""
    arguments = get_args(shape.kinds[0])
    if not arguments:
        return None
    return inspect_type(arguments[0] if arguments[-1] is ... else arguments[-1])


def _iter_settings(schema: Model, tree: Any, above: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield every setting of the current sections; the content of lists and mappings is left out."""
    for name in _names_at(schema, tree, above):
        yield (*above, name)
        yield from _iter_settings(schema, tree, (*above, name))


def has_path(tree: Any, path: KeyPath) -> bool:
    """Return whether the tree has a value at a path; null counts."""
    for part in path:
        in_list = isinstance(tree, list) and isinstance(part, int) and part < len(tree)
        if not in_list and not (isinstance(tree, dict) and part in tree):
            return False
        tree = tree[part]
    return True


def get_at(tree: Any, path: KeyPath) -> Any:
    """Return the value at a path of the tree; None where there is none."""
    for part in path:
        if not has_path(tree, (part,)):
            return None
        tree = tree[part]
    return tree

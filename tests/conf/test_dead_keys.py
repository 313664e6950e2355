"""Every setting of the schema is read by some code: a key that nothing reads would be a promise that nobody keeps."""

from __future__ import annotations

import ast

import source_trees
from pydantic import BaseModel

from tunectl.config.loading.type_descriptions import inspect_type, of_field, section, union_members
from tunectl.config.schema.root import TunectlConfig

NOT_READERS = (
    "pipeline/cost_estimate.py",
    "config/loading/foreign_",
    "config/loading/checks.py",
    "config/loading/json_schema_export.py",
    "pipeline/dataset_size.py",
    "cli/estimate.py",
)
"""Code that only estimates or describes: reading a setting there keeps no promise."""
TAGS = frozenset({"method"})
"""Picks the class, which is what code asks for."""


def _models(model: type[BaseModel], found: dict[str, type[BaseModel]]) -> dict[str, type[BaseModel]]:
    if f"{model.__module__}.{model.__qualname__}" not in found:
        found[f"{model.__module__}.{model.__qualname__}"] = model
        for info in model.model_fields.values():
            todo = [of_field(info)]
            while todo:
                shape = todo.pop()
                for kind in shape.kinds:
                    inner = section(kind)
                    if inner is not None:
                        _models(inner, found)
                    todo += [inspect_type(part) for part in getattr(kind, "__args__", ()) if part is not ...]
                for member in union_members(shape).values():
                    _models(member, found)
    return found


def _read_names() -> set[str]:
    names: set[str] = set()
    for file, tree in source_trees.parse_package().items():
        if not file.relative_to(source_trees.SOURCE).as_posix().startswith(NOT_READERS):
            names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return names


def test_every_setting_is_read_somewhere() -> None:
    read = _read_names()
    dead = [
        f"{model.__name__}.{name}"
        for model in _models(TunectlConfig, {}).values()
        for name in model.model_fields
        if name not in read
        and name not in TAGS
        and (model.__name__, name) not in {("TunectlConfig", "data"), ("DataVariables", "path")}
    ]
    assert dead == [], f"read by nothing: {', '.join(dead)}"


def test_the_walk_sees_members_of_unions_lists_and_mappings() -> None:
    found = {name.rpartition(".")[2] for name in _models(TunectlConfig, {})}
    assert {
        "TunectlConfig",
        "HardwareProfile",
        "HubModel",
        "WheelModel",
        "LoraCpt",
        "FileSource",
        "Fetch",
        "Shares",
    } <= found

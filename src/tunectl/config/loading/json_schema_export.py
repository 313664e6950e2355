"""JSON Schema of ``conf/``, so that editors complete, explain and check the files.

The docstrings of the fields of the section classes become the descriptions. Files of a group get the schema of their section;
experiments and ``config.yaml`` may set any part of the configuration, so nothing is required there.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import ConfigError

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_INTERPOLATION = {
    "type": "string",
    "pattern": r"^(\$\{[^{}:]+\}|\?\?\?)$",
    "description": "${other.setting}, or ??? for: must be given",
}
"""Allowed in a file in place of any value: the value is known only once all files are composed."""
SETTINGS = Path(".vscode/settings.json")
_DEFAULTS = {
    "type": "array",
    "description": "Files to start from, in order; later ones win.",
    "items": {"type": ["string", "object"]},
}


def root_schema() -> dict[str, Any]:
    """Return JSON Schema of the composed configuration, every setting required."""
    from tunectl.config.schema.root import TunectlConfig

    return {"$schema": DRAFT, **_model_schema(TunectlConfig), "title": "tunectl configuration"}


def group_schema(name: str) -> dict[str, Any]:
    """Return JSON Schema of one file of a group: its section, with interpolations and a defaults list allowed."""
    from tunectl.config.schema.root import TunectlConfig

    info = TunectlConfig.model_fields[name]
    schema = _model_schema(info.annotation) if isinstance(info.annotation, type) else {}
    return _add_title_and_defaults(_allow_partial_files(schema), f"conf/{name}")


def experiment_schema() -> dict[str, Any]:
    """Return JSON Schema of ``config.yaml`` and of experiments: any part of the configuration."""
    from tunectl.config.schema.root import TunectlConfig

    return _add_title_and_defaults(
        _allow_partial_files(_model_schema(TunectlConfig)), "conf/config.yaml and conf/experiment"
    )


def write_file(path: Path) -> None:
    """Write the JSON Schema of the whole configuration to the file ``path``."""
    atomic_io.write_json(path, root_schema())


def write_folder(layout: ProjectPaths, folder: Path) -> Iterator[str]:
    """Write one schema file per group below ``folder`` and bind them in ``.vscode/settings.json``; yields lines about what was done.

    Raises  ConfigError where the present settings file is not plain JSON, so nothing in it is lost.
    """
    from tunectl.config.schema.root import TunectlConfig

    binding: dict[str, list[str]] = {}
    for name in (name for name in TunectlConfig.model_fields if (layout.conf / name).is_dir()):
        binding[_save(folder, name, group_schema(name))] = [f"{layout.conf.name}/{name}/*.yaml"]
    globs = [f"{layout.conf.name}/config.yaml", f"{layout.conf.name}/experiment/*.yaml"]
    binding[_save(folder, "parts", experiment_schema())] = globs
    yield f"wrote {len(binding)} schemas to {folder}"
    path = layout.root / SETTINGS
    present = _present(path)
    atomic_io.write_json(path, {**present, "yaml.schemas": {**present.get("yaml.schemas", {}), **binding}})
    yield f"bound them to {layout.conf.name}/ in {SETTINGS}, for VS Code with the extension redhat.vscode-yaml"
    yield "any other editor with yaml-language-server: put a first line like this into a file of conf/sft:"
    yield f"    # yaml-language-server: $schema=../../{folder.as_posix()}/sft.schema.json"


def field_docs(model: type[BaseModel]) -> dict[str, str]:
    """Return the text under each field of a section class and of the classes that it extends, read from their sources."""
    result: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if issubclass(kind, BaseModel) and kind.__module__.startswith("tunectl.") and "[" not in kind.__name__:
            result |= _prose_of(kind)
    return result


def _prose_of(kind: type[BaseModel]) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    statements = body.body if isinstance(body, ast.ClassDef) else []
    result: dict[str, str] = {}
    for field, text in pairwise(statements):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            value = getattr(text.value, "value", None)
            if isinstance(value, str):
                result[field.target.id] = " ".join(value.split())
    return result


class _SchemaWithDescriptions(GenerateJsonSchema):
    """Adds the docstrings of section classes to their properties."""

    def model_schema(self, schema: Any) -> dict[str, Any]:
        """Return the schema of one section class."""
        result = super().model_schema(schema)
        texts = field_docs(schema["cls"])
        for name, value in result.get("properties", {}).items():
            value.pop("title", None)
            if name in texts:
                value["description"] = texts[name]
        return result


def _model_schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(schema_generator=_SchemaWithDescriptions, mode="validation")


def _allow_partial_files(schema: Any) -> Any:
    """Allow an interpolation for every setting, and in every section settings that are left to the base files."""
    if isinstance(schema, list):
        return [_allow_partial_files(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    # A part of a section may fit several members of a union, so exactly one becomes at least one.
    result = {
        "anyOf" if key == "oneOf" else key: _allow_partial_files(value)
        for key, value in schema.items()
        if key not in {"required", "discriminator"}
    }
    if isinstance(schema.get("properties"), dict):
        result["properties"] = {
            name: _or_interpolation(_allow_partial_files(value)) for name, value in schema["properties"].items()
        }
    return result


def _or_interpolation(schema: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {key: schema[key] for key in ("description", "title") if key in schema}
    inner = {key: value for key, value in schema.items() if key not in described}
    return {**described, "anyOf": [inner, _INTERPOLATION]}


def _add_title_and_defaults(schema: dict[str, Any], title: str) -> dict[str, Any]:
    result = {"$schema": DRAFT, **schema, "title": title}
    named = {option["$ref"].rpartition("/")[2] for option in result.get("anyOf", []) if "$ref" in option}
    for part in (result, *(result["$defs"][name] for name in named)):  # a section is one class, or a choice of several
        if "properties" in part:
            part["properties"] = {"defaults": _DEFAULTS, **part["properties"]}
    return result


def _save(folder: Path, name: str, schema: dict[str, Any]) -> str:
    path = folder / f"{name}.schema.json"
    atomic_io.write_json(path, schema)
    return f"./{path.as_posix()}"


def _present(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        text = f"{path}: holds comments or is not JSON, so it is left alone ({error})"
        raise ConfigError([text], hint='add a "yaml.schemas" entry by hand, or move the file away') from error
    if not isinstance(result, dict):
        raise ConfigError([f"{path}: must hold a JSON object"], hint="correct that file, or move it away")
    return result

"""Validate JSON against a declared schema, by jsonschema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tunectl.core.errors import ConfigError
from tunectl.core.optional import import_optional


def valid(text: str, document: Mapping[str, Any]) -> bool:
    """Return whether ``text`` is JSON that the schema ``document`` (draft 2020-12) accepts.

    NaN and Infinity, which Python would accept, are invalid; so are endless digits or brackets, as of a model that repeats itself.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    accepted: bool = import_optional("jsonschema", extra="evaluate").Draft202012Validator(document).is_valid(value)
    return accepted


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def check_schema(document: Mapping[str, Any], key: str) -> None:
    """Refuse an invalid JSON schema.

    Raises  ConfigError with the dotted ``key``, the location inside the schema and the error there.
    """
    library = import_optional("jsonschema", extra="evaluate")
    try:
        library.Draft202012Validator.check_schema(document)
    except library.SchemaError as error:
        location = "/".join(str(part) for part in error.absolute_path) or "its top"
        raise ConfigError(
            [f"{key} is not a JSON Schema: at {location}: {error.message}"], hint=f"correct {key} there"
        ) from error

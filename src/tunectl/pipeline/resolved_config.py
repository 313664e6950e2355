"""The resolved configuration of one stage: written by the ``compose`` stage, read without Hydra."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import msgspec
from pydantic import BaseModel, ValidationError

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import ArtifactError

AGAIN = "run: tunectl run compose"


class ResolvedStageConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ``artifacts/config/<stage>.json``. It contains no time and no host, so that equal settings give an equal file."""

    stage: str
    settings: dict[str, Any]
    """The sections and root values that the stage declares in its settings class."""
    code: str
    """Digest of the modules that the stage uses."""
    sources: dict[str, str | None] = {}
    """Digest of the content of each declared path; null where it matches nothing yet."""


def settings_class(stage: str) -> type[BaseModel]:
    """Return the class of a stage's configuration: ``tunectl.config.schema.sft:SftStage`` for ``sft``."""
    result: type[BaseModel] = getattr(import_module(f"tunectl.config.schema.{stage}"), f"{stage.capitalize()}Stage")
    return result


def stage_view(stage: str, root: BaseModel) -> dict[str, Any]:
    """Return the sections of the whole configuration that a stage declares, as plain values."""
    values = root.model_dump(mode="json")
    return {name: values[name] for name in settings_class(stage).model_fields}


def load_stage_config(layout: ProjectPaths, stage: str) -> tuple[Any, dict[str, Any]]:
    """Return the settings object of a stage, and the plain content of its JSON file (for digests).

    Raises  ArtifactError when the file is absent, damaged, or does not fit the settings class of this version.
    """
    path = layout.config(stage)
    if not path.is_file():
        raise ArtifactError(f"{path}, the configuration of stage {stage}, does not exist", hint=AGAIN)
    raw: dict[str, Any] = atomic_io.read_json(path)
    try:
        record = msgspec.convert(raw, ResolvedStageConfig)
        if record.stage != stage:
            raise ArtifactError(
                f"{path} must hold the configuration of {stage}, but holds that of stage {record.stage[:40]!r}",
                hint=AGAIN,
            )
        settings = settings_class(stage).model_validate_json(msgspec.json.encode(record.settings), strict=True)
    except (msgspec.ValidationError, ValidationError) as error:
        raise ArtifactError(f"{path} was made by another version of tunectl: {_first(error)}", hint=AGAIN) from error
    return settings, raw


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        item = error.errors(include_url=False)[0]
        return f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
    return str(error)

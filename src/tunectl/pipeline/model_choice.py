"""Find the model folder and adapter for a name: a stage's name, a model folder or an adapter folder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tunectl.artifacts import atomic_io, manifest
from tunectl.artifacts.paths import ProjectPaths
from tunectl.chat import model_spec
from tunectl.config.schema.model import BaseModelConfig, FolderModel
from tunectl.core.errors import UsageError

STAGES = ("model", "cpt", "sft", "align")
ADAPTER = "adapter_config.json"


class ModelChoice(NamedTuple):
    """Folder of a model's weights, and the folder of the adapter that is applied to them; None without one."""

    folder: Path
    adapter: Path | None


def resolve_model(
    layout: ProjectPaths, model: str | None, adapter: str | None, *, option: str = "--model"
) -> ModelChoice:
    """Return the folders that ``--model`` and ``--adapter`` name, checked to belong together; ``option``: name of ``--model`` in messages.

    Raises  UsageError for a name that is neither a stage nor a folder with a model; ArtifactError where a stage has not run, or the
            adapter was trained on another model.
    """
    choice = _model(layout, model, adapter, option)
    if adapter is not None and choice.adapter is None:
        result = layout.artifact("sft") if adapter == "auto" else Path(adapter)
        choice = choice._replace(adapter=_adapter(result, f"--adapter {adapter}"))
    if choice.adapter is not None:
        from tunectl.chat.model_spec import check_base_matches

        check_base_matches(choice.adapter, choice.folder)
    return choice


def _model(layout: ProjectPaths, name_or_folder: str | None, adapter: str | None, text: str) -> ModelChoice:
    if name_or_folder is None:
        raise UsageError("--model is missing: which model should answer?", hint="for example: --model sft")
    stage = (
        name_or_folder
        if name_or_folder in STAGES
        else next((name for name in STAGES if Path(name_or_folder) == layout.artifact(name)), None)
    )
    if stage is not None:
        folder = layout.artifact(stage)
        manifest.read(folder)
        if (folder / manifest.PASSED_THROUGH).is_file() and stage == "align":
            raise UsageError(
                f"{text} align: align was switched off (align: none), so there is no aligned model",
                hint="switch it on, for example tunectl repro align=rloo, or evaluate --model sft",
            )
        if stage in {"sft", "align"}:
            return ModelChoice(base_of_adapter(layout), folder)
        return ModelChoice(base_of_adapter(layout) if stage == "cpt" else folder, None)
    folder = Path(name_or_folder)
    if (folder / ADAPTER).is_file():
        if adapter is not None:
            raise UsageError(f"{text} {name_or_folder} is an adapter already; leave --adapter out")
        return ModelChoice(base_of_adapter(layout), folder)
    if (folder / "config.json").is_file():
        return ModelChoice(from_folder(layout, folder), None)
    what = "holds neither config.json nor adapter_config.json" if folder.is_dir() else "is no folder"
    raise UsageError(
        f"{text} {name_or_folder}: no stage with a model has that name, and it {what}",
        hint=f"give one of {', '.join(STAGES)}, a model folder or an adapter folder",
    )


def _adapter(folder: Path, text: str) -> Path:
    if not (folder / ADAPTER).is_file():
        raise UsageError(f"{text}: {folder / ADAPTER} does not exist", hint="give the folder of an adapter")
    return folder


def base_of_adapter(layout: ProjectPaths) -> Path:
    """Return the folder of the model that sft trains: cpt's weights, or the base model where cpt is switched off."""
    cpt = layout.artifact("cpt")
    passed = (cpt / manifest.PASSED_THROUGH).is_file() or not (cpt / "config.json").is_file()
    return layout.artifact("model") if passed else cpt


def from_folder(layout: ProjectPaths, folder: Path) -> Path:
    """Return ``folder`` itself where it holds model_spec.json, else the folder of a prepared copy."""
    if (folder / model_spec.NAME).is_file():
        return folder
    source = FolderModel(method="folder", path=str(folder), sha256=None)
    return prepare_model(
        layout, BaseModelConfig(source=source, chat_template=None, eot_token=None, system=None, license=None)
    )


def prepare_model(layout: ProjectPaths, model: BaseModelConfig) -> Path:
    """Prepare a declared base model as the stage model does; return its folder in the cache, whose key is a digest of the settings.

    For a model folder on this machine the key includes its files, since they may change.
    """
    from tunectl.config.schema.model import ModelStage
    from tunectl.pipeline.stages import model as stage

    values = model.model_dump(mode="json")
    if isinstance(model.source, FolderModel):
        values["content"] = sorted(
            (item.name, atomic_io.sha256_path(item)) for item in Path(model.source.path).glob("*.*")
        )
    target = layout.cache / "bases" / atomic_io.sha256_json(values)[:16]
    if not target.is_dir():
        with atomic_io.atomic_directory(target, layout.scratch) as folder:
            stage.run(ModelStage(model=model), stage.Inputs(), stage.Outputs(folder))
    return target

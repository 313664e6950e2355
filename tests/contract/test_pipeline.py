"""dvc.yaml, the stage table, the stage modules, the layout and the configuration say the same."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunectl.artifacts.paths import ProjectPaths
from tunectl.cli.main import VERBS
from tunectl.config.schema.root import TunectlConfig
from tunectl.pipeline.stages import COMPOSE, STAGES, Stage

ROOT = Path(__file__).parents[2]
PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
LAYOUT = ProjectPaths()


def names(entries: list[Any]) -> list[str]:
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def test_dvc_yaml_has_the_stages_of_the_table_in_its_order() -> None:
    assert list(PIPELINE) == [COMPOSE, *(stage.name for stage in STAGES)]


def test_compose_writes_one_json_a_stage_and_always_runs() -> None:
    assert PIPELINE[COMPOSE]["always_changed"] is True
    assert names(PIPELINE[COMPOSE]["outs"]) == [str(LAYOUT.config(stage.name)) for stage in STAGES]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_reads_and_writes_what_dvc_yaml_declares(stage: Stage) -> None:
    module, told = import_module(stage.module), PIPELINE[stage.name]
    assert told["cmd"] == f"tunectl run {stage.name}"
    assert told["params"] == [{str(LAYOUT.config(stage.name)): None}]
    assert set(told.get("deps", [])) == {
        str(LAYOUT.artifact(field.name)) for field in dataclasses.fields(module.Inputs)
    }
    outputs = {field.name for field in dataclasses.fields(module.Outputs)}
    assert outputs <= {"artifact", "plots", "work"}
    expected = [str(LAYOUT.artifact(stage.name))] + ([str(LAYOUT.plots(stage.name))] if "plots" in outputs else [])
    assert names(told["outs"]) == expected
    assert names(told["metrics"]) == [str(LAYOUT.metrics(stage.name))]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_is_a_section_a_group_and_a_schema(stage: Stage) -> None:
    module, _, name = stage.settings.partition(":")
    settings = getattr(import_module(module), name)
    assert stage.name in settings.model_fields
    assert set(settings.model_fields) <= set(TunectlConfig.model_fields)
    assert (ROOT / "conf" / stage.name).is_dir()


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_module_has_four_public_names(stage: Stage) -> None:
    module = import_module(stage.module)
    own = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == stage.module
    }
    assert own == {"Inputs", "Outputs", "Metrics", "run"}


def test_the_stage_folder_holds_the_table_and_nothing_else() -> None:
    files = {path.stem for path in (ROOT / "src/tunectl/pipeline/stages").glob("*.py")} - {"__init__"}
    assert files == {COMPOSE, *(stage.name for stage in STAGES)}


def test_every_verb_has_its_module_with_add_and_run() -> None:
    for verb in VERBS:
        module = import_module(verb.module)
        assert module.__doc__, verb.name
        assert callable(module.add)
        assert callable(module.run)

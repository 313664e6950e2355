"""JSON Schema: what editors check ``conf/`` with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import json_schema_export
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.core.errors import ConfigError

CONF = Path(__file__).parents[3] / "conf"
GROUPS = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir() and folder.name != "experiment")


def _load(path: Path) -> object:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(OmegaConf.load(path), resolve=False)


@pytest.mark.parametrize("group", GROUPS)
def test_every_file_of_a_group_fits_the_schema_that_editors_get(group: str) -> None:
    validator = Draft202012Validator(json_schema_export.group_schema(group))
    for file in sorted((CONF / group).glob("*.yaml")):
        errors = [
            f"{file.name}: {error.json_path} {error.message[:200]}" for error in validator.iter_errors(_load(file))
        ]
        assert errors == []


def test_experiments_and_the_recipe_fit_the_schema_of_parts() -> None:
    validator = Draft202012Validator(json_schema_export.experiment_schema())
    for file in [CONF / "config.yaml", *sorted((CONF / "experiment").glob("*.yaml"))]:
        assert [error.message for error in validator.iter_errors(_load(file))] == [], file.name


def test_editors_refuse_a_misspelt_key_a_wrong_type_and_a_value_out_of_range() -> None:
    validator = Draft202012Validator(json_schema_export.group_schema("hardware"))
    for wrong in ({"devise": "cpu"}, {"device": "tpu"}, {"train_batch_tokens": "many"}, {"train_batch_tokens": 3}):
        assert not validator.is_valid(wrong)
    assert validator.is_valid({"train_batch_tokens": "${sft.max_length}"})
    assert validator.is_valid({"device": "???"})


def test_the_prose_under_the_fields_explains_them() -> None:
    assert json_schema_export.field_docs(HardwareProfile)["device"] == "Device of the tensors."
    made = json_schema_export.group_schema("hardware")["properties"]
    assert made["device"]["description"] == "Device of the tensors."
    assert set(made) == {"defaults", *HardwareProfile.model_fields}


def test_every_setting_of_the_whole_is_explained() -> None:
    made = json_schema_export.root_schema()
    shapes = {"Root": made, **made["$defs"]}
    silent = [
        f"{name}.{key}"
        for name, shape in shapes.items()
        for key, value in shape.get("properties", {}).items()
        if not value.get("description") and "$ref" not in value
    ]
    assert silent == [], ", ".join(silent)


def test_a_folder_of_schemas_is_bound_without_losing_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("sft", "hardware"):
        (tmp_path / "conf" / name).mkdir(parents=True)
    (tmp_path / ".vscode").mkdir()
    settings = tmp_path / ".vscode" / "settings.json"
    settings.write_text('{"editor.tabSize": 2, "yaml.schemas": {"mine.json": "a.yaml"}}')
    said = list(json_schema_export.write_folder(ProjectPaths(), Path("schema")))
    assert said[0] == "wrote 3 schemas to schema"
    assert said[-1] == "    # yaml-language-server: $schema=../../schema/sft.schema.json"
    found = json.loads(settings.read_text())
    assert found["editor.tabSize"] == 2
    assert found["yaml.schemas"]["mine.json"] == "a.yaml"
    assert found["yaml.schemas"]["./schema/sft.schema.json"] == ["conf/sft/*.yaml"]
    assert json.loads((tmp_path / "schema/sft.schema.json").read_text())["title"] == "conf/sft"


def test_settings_with_comments_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    (tmp_path / ".vscode").mkdir()
    (tmp_path / ".vscode/settings.json").write_text("// mine\n{}")
    with pytest.raises(
        ConfigError, match=r"^\.vscode/settings\.json: holds comments or is not JSON, so it is left alone"
    ):
        list(json_schema_export.write_folder(ProjectPaths(), Path("schema")))
    assert (tmp_path / ".vscode/settings.json").read_text() == "// mine\n{}"

"""Stage compose: one JSON a stage, written only where something changed."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from conf_copy import copy_conf

from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import override_file
from tunectl.config.loading.override_parsing import Override
from tunectl.core.errors import ConfigError
from tunectl.pipeline import code_digest, resolved_config
from tunectl.pipeline.stages import STAGES
from tunectl.pipeline.stages.compose import compose

NAMES = [stage.name for stage in STAGES]


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> code_digest.PackageSources:
    """A copy of the sources: those of the checkout may be edited while a test runs, and compose would rightly see it."""
    here = code_digest.find_package_sources()
    root = tmp_path_factory.mktemp("sources") / here.root.name
    shutil.copytree(here.root, root, ignore=shutil.ignore_patterns("__pycache__"))
    return code_digest.PackageSources(
        root, {name: root / file.relative_to(here.root) for name, file in here.modules.items()}
    )


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, still: code_digest.PackageSources) -> ProjectPaths:
    monkeypatch.setattr(code_digest, "find_package_sources", lambda: still)
    copy_conf(tmp_path)
    (tmp_path / "raw" / "more").mkdir(parents=True)
    (tmp_path / "raw/a.csv").write_text("prompt,completion\na,b\n")
    (tmp_path / "raw/more/b.txt").write_text("text\n")
    monkeypatch.chdir(tmp_path)
    layout = ProjectPaths()
    override_file.save_overrides(layout, [Override.from_cli("ingest=documents"), Override.from_cli("data.path=raw")])
    return layout


def _written(layout: ProjectPaths) -> list[str]:
    return compose(layout)["written"]


def test_every_stage_gets_its_settings_code_and_sources(layout: ProjectPaths) -> None:
    assert compose(layout) == {"written": NAMES, "unchanged": [], "removed": []}
    found = json.loads(layout.config("ingest").read_text())
    assert list(found) == ["code", "settings", "sources", "stage"]
    assert list(found["settings"]) == ["ingest"]
    assert list(found["sources"]) == ["raw"]
    for name in NAMES:
        settings, record = resolved_config.load_stage_config(layout, name)
        assert set(record["settings"]) == set(type(settings).model_fields)
        assert len(record["code"]) == 64


def test_a_second_time_nothing_is_written(layout: ProjectPaths) -> None:
    compose(layout)
    before = {name: layout.config(name).stat().st_mtime_ns for name in NAMES}
    assert compose(layout) == {"written": [], "unchanged": NAMES, "removed": []}
    assert {name: layout.config(name).stat().st_mtime_ns for name in NAMES} == before


def test_an_edit_changes_the_stages_that_see_it_and_no_other(layout: ProjectPaths) -> None:
    compose(layout)
    sft = layout.conf / "sft/lora.yaml"
    sft.write_text(sft.read_text().replace("rank: 16", "rank: 24"))
    assert _written(layout) == ["sft"]
    sft.write_text("# a comment\n" + sft.read_text())
    assert _written(layout) == []
    (layout.root / "raw/c.txt").write_text("new\n")
    assert _written(layout) == ["ingest"]
    (layout.root / "raw/a.csv").write_text("prompt,completion\na,c\n")
    assert _written(layout) == ["ingest"]
    (layout.root / "raw/c.txt").rename(layout.root / "raw/d.txt")
    assert _written(layout) == ["ingest"]
    (layout.root / "raw/.hidden").write_text("x")
    assert _written(layout) == []
    override_file.save_overrides(
        layout, override_file.merge_overrides(override_file.load_overrides(layout), ["seed=18"])
    )
    assert _written(layout) == [name for name in NAMES if "seed" in resolved_config.settings_class(name).model_fields]


def test_a_touched_file_is_read_again_and_means_the_same(layout: ProjectPaths) -> None:
    compose(layout)
    os.utime(layout.root / "raw/a.csv", ns=(1, time.time_ns()))
    assert _written(layout) == []


def test_a_source_that_is_not_there_is_noted_as_such(layout: ProjectPaths) -> None:
    override_file.save_overrides(
        layout, override_file.merge_overrides(override_file.load_overrides(layout), ["data.path=none/*.csv"])
    )
    compose(layout)
    assert json.loads(layout.config("ingest").read_text())["sources"] == {"none/*.csv": None}


def test_a_local_base_model_and_a_template_file_are_sources_of_the_model(layout: ProjectPaths) -> None:
    (layout.root / "base").mkdir()
    (layout.root / "base/config.json").write_text("{}")
    (layout.root / "chat.jinja").write_text("{{ messages }}")
    words = ["model=folder", "model.source.path=base", "model.chat_template=chat.jinja"]
    override_file.save_overrides(layout, override_file.merge_overrides(override_file.load_overrides(layout), words))
    compose(layout)
    assert sorted(json.loads(layout.config("model").read_text())["sources"]) == ["base", "chat.jinja"]
    (layout.root / "chat.jinja").write_text("{{ messages[0] }}")
    assert _written(layout) == ["model"]


def test_the_adapter_that_training_goes_on_from_is_a_source_of_it(layout: ProjectPaths) -> None:
    weights = layout.root / ".tunectl/init_adapters/0123/adapter_model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_text("1")
    override_file.save_overrides(
        layout,
        override_file.merge_overrides(
            override_file.load_overrides(layout), ["sft.init_adapter=.tunectl/init_adapters/0123"]
        ),
    )
    compose(layout)
    (found,) = json.loads(layout.config("sft").read_text())["sources"].items()
    assert found[0] == ".tunectl/init_adapters/0123/adapter_model.safetensors"
    assert len(found[1]) == 64
    weights.write_text("2")
    assert _written(layout) == ["sft"]


def test_the_json_of_a_stage_that_is_no_more_goes(layout: ProjectPaths) -> None:
    layout.config("elder").parent.mkdir(parents=True)
    layout.config("elder").write_text("{}")
    assert compose(layout)["removed"] == ["elder"]
    assert not layout.config("elder").exists()


def test_a_mistake_leaves_everything_as_it_was(layout: ProjectPaths) -> None:
    compose(layout)
    before = {name: layout.config(name).read_bytes() for name in NAMES}
    (layout.conf / "overrides.yaml").write_text("- sft.epohcs=3\n")
    with pytest.raises(ConfigError, match=r"did you mean sft\.epochs"):
        compose(layout)
    assert {name: layout.config(name).read_bytes() for name in NAMES} == before


def test_a_broken_cache_is_only_slower(layout: ProjectPaths) -> None:
    compose(layout)
    for name in ("digests.json", "code.json"):
        (layout.cache / name).write_text("{broken")
    assert _written(layout) == []

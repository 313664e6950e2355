"""One resolved JSON a stage, read back without Hydra."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from subprocess import run

import pytest

from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import ArtifactError
from tunectl.pipeline import resolved_config

SPLIT = {
    "shares": {"train": 0.7, "validation": 0.15, "test": 0.15},
    "stratify": [],
    "group": [],
    "hold_out": {},
    "leakage": None,
    "documents_exclude_groups": [],
    "population": {},
    "balance": None,
    "max_rejected_share": 0.5,
}


@pytest.fixture
def layout(tmp_path: Path) -> ProjectPaths:
    layout = ProjectPaths(tmp_path)
    layout.config("split").parent.mkdir(parents=True)
    return layout


def _write(layout: ProjectPaths, **changes: object) -> None:
    record = {"stage": "split", "settings": {"split": SPLIT, "seed": 3}, "code": "c", "sources": {}} | changes
    layout.config("split").write_text(json.dumps(record))


def test_settings_and_record_come_back(layout: ProjectPaths) -> None:
    _write(layout)
    settings, record = resolved_config.load_stage_config(layout, "split")
    assert (settings.seed, settings.split.shares.train) == (3, 0.7)
    assert record["code"] == "c"


def test_an_absent_file_says_what_to_run(layout: ProjectPaths) -> None:
    with pytest.raises(ArtifactError) as caught:
        resolved_config.load_stage_config(layout, "split")
    assert (
        str(caught.value)
        == f"{layout.config('split')}, the configuration of stage split, does not exist\n  run: tunectl run compose"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"settings": {"split": SPLIT}}, "seed: Field required"),
        ({"settings": {"split": SPLIT, "seed": "3"}}, "seed: Input should be a valid integer"),
        ({"code": 3}, "Expected `str`, got `int` - at `$.code`"),
        ({"extra": 3}, "Object contains unknown field `extra`"),
    ],
)
def test_a_record_of_another_version_is_refused(layout: ProjectPaths, changes: dict[str, object], reason: str) -> None:
    _write(layout, **changes)
    with pytest.raises(ArtifactError) as caught:
        resolved_config.load_stage_config(layout, "split")
    assert caught.value.message == f"{layout.config('split')} was made by another version of tunectl: {reason}"
    assert caught.value.hint == "run: tunectl run compose"


def test_a_record_of_another_stage_is_refused(layout: ProjectPaths) -> None:
    _write(layout, stage="sft")
    with pytest.raises(
        ArtifactError, match=r"split\.json must hold the configuration of split, but holds that of stage 'sft'"
    ):
        resolved_config.load_stage_config(layout, "split")


def test_reading_imports_neither_hydra_nor_yaml(layout: ProjectPaths) -> None:
    _write(layout)
    code = (
        "import sys; from pathlib import Path; from tunectl.artifacts.paths import ProjectPaths; from tunectl.pipeline import resolved_config;"
        f"resolved_config.load_stage_config(ProjectPaths(Path({str(layout.root)!r})), 'split');"
        "print([name for name in ('hydra', 'omegaconf', 'yaml', 'torch') if name in sys.modules])"
    )
    done = run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

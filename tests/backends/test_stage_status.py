"""Staleness without DVC: after every change, the stages that would run again are those that ``dvc status`` names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.vcs import dvc_lock, dvc_repo
from tunectl.cli.main import main
from tunectl.core.errors import ArtifactError
from tunectl.pipeline import stage_status
from tunectl.pipeline.stage_status import StageStatus, list_stage_status
from tunectl.pipeline.stages import STAGES
from tunectl.pipeline.stages.compose import compose

ROOT = Path(__file__).parents[2]
STAGE = """
import json, sys, pathlib
from tunectl.artifacts import manifest
name = sys.argv[1]
for folder in ("artifacts", "artifacts/plots"):
    out = pathlib.Path(folder, name)
    out.mkdir(parents=True, exist_ok=True)
    (out / "content.csv").write_text(name)
pathlib.Path("artifacts/metrics").mkdir(exist_ok=True)
pathlib.Path("artifacts/metrics", name + ".json").write_text(json.dumps({"seconds": 1.5}))
manifest.write(pathlib.Path("artifacts", name), manifest.Manifest(name, "", passed_through=name == "cpt"))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's project, built by stages of milliseconds under the real dvc.yaml."""
    root = tmp_path_factory.mktemp("status") / "project"
    for name in ("conf", "examples/local_lens/data"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("overrides.yaml"))
    (root / "stage.py").write_text(STAGE)
    command = f"{sys.executable} stage.py"
    pipeline = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    fake = pipeline.replace("tunectl run", command).replace(f"{command} compose", "tunectl run compose")
    (root / "dvc.yaml").write_text(fake, encoding="utf-8")
    for words in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
        subprocess.run(words, cwd=root, check=True)
    assert dvc_repo.repro(root) == 0
    return root


@pytest.fixture
def project(built: Path, tmp_path: Path) -> ProjectPaths:
    """A copy with times of change kept, as a killed and restarted machine has it."""
    root = tmp_path / "project"
    shutil.copytree(built, root, symlinks=True)
    return ProjectPaths(root)


def find_stage(layout: ProjectPaths, name: str) -> StageStatus:
    return next(row for row in list_stage_status(layout) if row.stage == name)


def list_stale(layout: ProjectPaths) -> set[str]:
    """By our own reading."""
    return {row.stage for row in list_stage_status(layout) if row.state in {stage_status.STALE, stage_status.NOT_BUILT}}


def list_stale_by_dvc(layout: ProjectPaths) -> set[str]:
    """By DVC, once ``compose`` has written the settings, as ``tunectl repro`` does first."""
    compose(layout)
    asked = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"], cwd=layout.root, capture_output=True, check=True
    )
    return set(json.loads(asked.stdout)) - {"compose"}


def test_a_finished_build_is_up_to_date(project: ProjectPaths) -> None:
    assert {row.state for row in list_stage_status(project)} == {"up to date", "switched off"}
    row = find_stage(project, "cpt")
    assert (row.state, row.seconds, row.changes, row.verdict) == ("switched off", 1.5, [], None)


def test_a_changed_setting_is_shown_with_its_old_and_new_value(project: ProjectPaths) -> None:
    project.overrides.write_text("- sft.lora_rank=32\n- sft.system=Answer briefly.\n", encoding="utf-8")
    assert list_stale(project) == {"sft"}
    assert find_stage(project, "sft").why == "sft.lora_rank 16 -> 32; sft.system null -> Answer briefly."
    assert list_stale_by_dvc(project) == {"sft"}


def test_small_and_large_numbers_of_dvc_lock_are_numbers(tmp_path: Path) -> None:
    values = {"rate": 5e-05, "large": 1e16, "text": "5e-05", "name": "1e5a"}
    lines = ["rate: 5e-05", "large: 1e+16", "text: '5e-05'", "name: 1e5a"]
    (tmp_path / "dvc.lock").write_text(
        "stages:\n  sft:\n    cmd: x\n    params:\n      sft.json:\n" + "".join(f"        {line}\n" for line in lines)
    )
    assert dvc_lock.read_lock_file(tmp_path)["sft"].params == {"sft.json": values}


def test_a_group_of_another_shape_names_the_keys_of_both(project: ProjectPaths) -> None:
    project.overrides.write_text("- reward=none\n", encoding="utf-8")
    row = find_stage(project, "reward")
    assert row.state == "stale"
    assert {"reward.method lora -> none", "reward.lora_rank 16 -> (none)"} <= set(map(str, row.changes))
    assert list_stale(project) == list_stale_by_dvc(project)


def test_a_line_tells_the_first_changes_and_counts_the_rest() -> None:
    changes = [stage_status.StageChange(f"sft.setting_{number}", 1, 2) for number in range(5)]
    stale = stage_status.StageStatus("sft", "stale", changes, None, None)
    assert stale.why == "sft.setting_0 1 -> 2; sft.setting_1 1 -> 2; sft.setting_2 1 -> 2; and 2 more"
    assert msgspec.structs.replace(stale, changes=changes[:1]).why == "sft.setting_0 1 -> 2"


def test_a_changed_source_makes_ingest_stale(project: ProjectPaths) -> None:
    path = project.root / "examples/local_lens/data/new_clients.jsonl"
    path.write_text(path.read_text(encoding="utf-8").partition("\n")[2], encoding="utf-8")
    assert find_stage(project, "ingest").why == "source examples/local_lens/data/new_clients.jsonl changed"
    assert list_stale(project) == {"ingest"} == list_stale_by_dvc(project)


def test_a_written_output_makes_its_stage_stale(project: ProjectPaths) -> None:
    written = project.artifact("split") / "content.csv"
    time.sleep(0.01)  # a time of change later than the manifest's
    written.write_text("SPLIT", encoding="utf-8")
    assert find_stage(project, "split").why == "output artifacts/split/content.csv changed"
    assert "split" in list_stale_by_dvc(project)
    (project.artifact("curate") / "more.txt").write_text("1", encoding="utf-8")
    assert find_stage(project, "curate").why == "output artifacts/curate changed"


def test_an_input_that_was_built_again_makes_its_readers_stale(project: ProjectPaths) -> None:
    script = project.root / "stage.py"
    script.write_text(STAGE.replace("write_text(name)", "write_text(name * 2)"), encoding="utf-8")
    assert dvc_repo.repro(project.root, ["model"], force=True) == 0
    assert find_stage(project, "sft").why == "input artifacts/model changed"
    assert list_stale(project) == list_stale_by_dvc(project)


def test_a_changed_command_makes_its_stage_stale(project: ProjectPaths) -> None:
    path = project.root / "dvc.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("stage.py reward", "stage.py  reward"), encoding="utf-8")
    assert find_stage(project, "reward").why.startswith("command in dvc.yaml ")
    assert list_stale(project) == {"reward"} == list_stale_by_dvc(project)


def test_code_that_changed_is_said_to_have(project: ProjectPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunectl.pipeline import code_digest

    real = code_digest.stage_code_digests
    monkeypatch.setattr(code_digest, "stage_code_digests", lambda *args: {**real(*args), "package": "0" * 64})
    assert (find_stage(project, "package").why, list_stale(project)) == ("code changed", {"package"})


def test_an_output_that_only_the_cache_holds_comes_back(project: ProjectPaths) -> None:
    shutil.rmtree(project.artifact("sft"))
    assert (find_stage(project, "sft").state, list_stale(project)) == ("in the cache", set())
    shutil.rmtree(project.root / ".dvc" / "cache")
    row = find_stage(project, "sft")
    assert (row.state, row.why) == ("not built", "")


def test_the_cache_may_lie_elsewhere(project: ProjectPaths, tmp_path: Path) -> None:
    shutil.move(project.root / ".dvc" / "cache", tmp_path / "elsewhere")
    (project.root / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {tmp_path / 'elsewhere'}\n")
    shutil.rmtree(project.artifact("sft"))
    assert find_stage(project, "sft").state == "in the cache"


def test_nothing_built_is_said_so(project: ProjectPaths) -> None:
    (project.root / "dvc.lock").unlink()
    assert {row.state for row in list_stage_status(project)} == {"not built"}
    assert len(list_stage_status(project)) == len(STAGES)


@pytest.mark.parametrize("content", ["stages: [<<<<<<< HEAD", "", "- stages"])
def test_a_damaged_lock_file_is_named(
    project: ProjectPaths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    path = project.root / "dvc.lock"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"dvc\.lock is not a lock file of DVC") as caught:
        list_stage_status(project)
    assert "git checkout dvc.lock" in caught.value.hint
    monkeypatch.chdir(project.root)
    assert main(["repro"]) == 5
    assert "dvc.lock is not a lock file of DVC" in capsys.readouterr().err


def test_it_answers_while_dvc_is_busy_and_writes_no_tracked_file(project: ProjectPaths) -> None:
    def read_tracked() -> dict[Path, bytes]:
        files = (path for path in project.root.rglob("*") if path.is_file())
        return {path: path.read_bytes() for path in files if ".tunectl" not in path.parts}

    busy = {"write": {str(project.root / "artifacts/sft"): {"pid": os.getpid(), "cmd": "dvc repro"}}, "read": {}}
    (project.root / ".dvc" / "tmp" / "rwlock").write_text(json.dumps(busy))
    project.overrides.write_text("- sft.lora_rank=32\n", encoding="utf-8")
    before = read_tracked()
    assert list_stale(project) == {"sft"}
    assert read_tracked() == before


def test_the_lock_file_reader_keeps_sizes(built: Path) -> None:
    stage = dvc_lock.read_lock_file(built)["sft"]
    output = stage.outputs["artifacts/sft"]
    assert (output.md5.endswith(".dir"), output.files, output.size > 0) == (True, 2, True)
    assert dvc_lock.is_in_cache(built, output)

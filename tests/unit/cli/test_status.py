"""What ``tunectl status`` says of a stage, from DVC's report."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.vcs import dvc_repo
from tunectl.pipeline import stage_status
from tunectl.pipeline.stages import compose


def row(
    monkeypatch: pytest.MonkeyPatch, root: Path, changes: list[object], lost: tuple[str, ...] = ()
) -> tuple[str, str]:
    """State and reasons of the stage ``sft``."""
    monkeypatch.setattr(dvc_repo, "missing_cached_outputs", lambda _: set(lost))
    monkeypatch.setattr(compose, "compose", lambda _: {})
    monkeypatch.setattr(dvc_repo, "status", lambda _: {"sft": changes})
    found = next(item for item in stage_status.stage_status(ProjectPaths(root)) if item["stage"] == "sft")
    return found["state"], found["why"]


GONE = {"changed outs": {"artifacts/sft": "deleted"}}


def test_a_stage_that_never_ran_is_not_built_yet(monkeypatch, tmp_path):
    changes = [{"changed deps": {"artifacts/model": "deleted", "artifacts/config/sft.json": "new"}}, GONE]
    assert row(monkeypatch, tmp_path, changes) == ("not built", "not built yet")


def test_an_artifact_that_was_deleted_everywhere_is_said_to_be(monkeypatch, tmp_path):
    found = row(monkeypatch, tmp_path, [GONE], ("artifacts/sft",))
    assert found == ("not built", "output artifacts/sft deleted")


def test_one_that_dvc_keeps_is_not_built_again(monkeypatch, tmp_path):
    upstream = {"changed deps": {"artifacts/model": "deleted"}}
    assert row(monkeypatch, tmp_path, [upstream, GONE], ("artifacts/model",)) == ("in the cache", "")
    changed = {"changed deps": {"artifacts/config/sft.json": {"sft.lora_rank": "modified"}}}
    assert row(monkeypatch, tmp_path, [changed, GONE])[0] == "not built"


def test_a_changed_key_is_named(monkeypatch, tmp_path):
    changes = [{"changed deps": {"artifacts/config/sft.json": {"sft.lora_rank": "modified"}}}]
    assert row(monkeypatch, tmp_path, changes)[1] == "artifacts/config/sft.json sft.lora_rank modified"

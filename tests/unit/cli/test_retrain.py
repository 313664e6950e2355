"""``tunectl watch``: a setting that only a build would read is refused, as its retrains would not see it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tunectl.cli.main import main
from tunectl.services import retrain_controller

ROOT = Path(__file__).parents[3]


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Settings with which a watcher began, in a project of nothing but its configuration."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    approvals: list[str] = []
    monkeypatch.setattr(
        retrain_controller, "run", lambda _layout, root, **_words: approvals.append(root.retrain.approval.training)
    )
    return approvals


@pytest.mark.parametrize("text", ["seed=7", "sft=dora", "sft.epochs=1", "align=dpo"])
def test_a_setting_of_a_build_is_refused(begun: list[str], capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert main(["watch", text]) == 2
    said = capsys.readouterr().err
    assert f"{text}: a watcher's retrains are built with the settings that the project has recorded" in said
    assert f"tunectl repro {text}" in said
    assert f"retrain.train.overrides=[{text}]" in said
    assert begun == []


@pytest.mark.parametrize("text", ["retrain.approval.training=none", "serve.poll_seconds=1", "feedback.holdout=0.4"])
def test_its_own_settings_are_taken(begun: list[str], text: str) -> None:
    assert main(["watch", text]) == 0
    assert begun == ["none" if "training=none" in text else "required"]

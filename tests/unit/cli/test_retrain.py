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
    modes: list[str] = []
    monkeypatch.setattr(retrain_controller, "run", lambda _layout, root, **_words: modes.append(root.watch.mode))
    return modes


@pytest.mark.parametrize("text", ["seed=7", "sft=dora", "sft.epochs=1", "align=dpo"])
def test_a_setting_of_a_build_is_refused(begun: list[str], capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert main(["watch", text]) == 2
    said = capsys.readouterr().err
    assert f"{text}: a watcher's retrains are built with the settings that the project has recorded" in said
    assert f"tunectl repro {text}" in said
    assert f"watch.train.overrides=[{text}]" in said
    assert begun == []


@pytest.mark.parametrize("text", ["watch.mode=auto", "serve.poll_seconds=1", "harvest.holdout=0.4"])
def test_its_own_settings_are_taken(begun: list[str], text: str) -> None:
    assert main(["watch", text]) == 0
    assert begun == ["auto" if "auto" in text else "ask"]

"""``tunectl explain``: the struct of the console's page, for a terminal and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from console_records import HOSTILE, add_releases, add_rows, add_settings, add_traffic

from tunectl.artifacts.paths import ProjectPaths
from tunectl.cli.main import main
from tunectl.registry.release_manifest import BuildFacts
from tunectl.registry.release_store import ReleaseRegistry


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    add_settings(tmp_path)
    _, champion = add_releases(tmp_path, add_rows(tmp_path))
    add_traffic(tmp_path, champion, 3)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_json_is_the_struct_of_the_page(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "chatcmpl-0001", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["kind"], shown["problems"]) == ("answer", {})
    assert [step["kind"] for step in shown["behind"]][:2] == ["answer", "release"]


def test_the_terminal_shows_both_directions_and_what_is_not_known(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", "e-1"]) == 0
    text = capsys.readouterr().out
    assert "What is behind it:" in text
    assert "file and row: data/ads.jsonl:2" in text
    assert "What came after it:" in text
    assert "learned it" in text


def test_explain_strips_control_codes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "\u202e" in HOSTILE
    assert main(["explain", "chatcmpl-0000"]) == 0
    text = capsys.readouterr().out
    assert "<script>" in text
    assert "\u202e" not in text


def test_an_unknown_id_is_a_mistake_of_the_user(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "nobody-knows"]) == 2
    error = capsys.readouterr().err
    assert "nobody-knows: there is no answer, release, retrain or row with this id" in error
    assert "tunectl log show" in error


def test_an_id_with_which_several_begin_is_one_too(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "chatcmpl-"]) == 2
    shown = capsys.readouterr()
    assert (shown.out, "inference log: " in shown.err) == ("", True)


def test_the_commit_of_a_build_is_no_decision(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ReleaseRegistry(ProjectPaths().releases)
    (project / "third").mkdir()
    (project / "third" / "weights").write_text("third")
    for git in ("1" * 40 + "-dirty", "2" * 40):
        release = store.add(project / "third", BuildFacts("shop", "transformers", "adapter"), git=git).id
    assert main(["explain", release, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert f"Nobody decided anything about release {release} yet." in shown["unknown"]
    assert "2" * 40 in json.dumps(shown)

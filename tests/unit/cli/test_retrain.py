"""``tunectl retrain``: a build's settings are refused by the controller; a request waits for it; status only looks."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conf_copy import copy_conf

from tunectl.artifacts import atomic_io, lock
from tunectl.artifacts.paths import ProjectPaths
from tunectl.cli.main import main
from tunectl.retraining.run_store import LOCK, RunStore, TriggerOutcome
from tunectl.retraining.state_machine import Transition, Trigger, apply_transition, new_run
from tunectl.services import retrain_controller


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Settings with which a controller began, in a project of nothing but its configuration."""
    copy_conf(tmp_path)
    monkeypatch.chdir(tmp_path)
    approvals: list[str] = []
    monkeypatch.setattr(
        retrain_controller, "run", lambda _layout, root, **_words: approvals.append(root.retrain.approval.training)
    )
    return approvals


@pytest.mark.parametrize("text", ["seed=7", "sft=dora", "sft.epochs=1", "align=dpo"])
def test_a_setting_of_a_build_is_refused(begun: list[str], capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert main(["retrain", "controller", text]) == 2
    said = capsys.readouterr().err
    assert f"{text}: a retrain is built with the settings that the project has recorded" in said
    assert f"tunectl repro {text}" in said
    assert f"retrain.train.overrides=[{text}]" in said
    assert begun == []


@pytest.mark.parametrize("text", ["retrain.approval.training=none", "serve.poll_seconds=1", "feedback.holdout=0.4"])
def test_its_own_settings_are_taken(begun: list[str], text: str) -> None:
    assert main(["retrain", "controller", text]) == 0
    assert begun == ["none" if "training=none" in text else "required"]


NOW = datetime(2026, 5, 1, 9, 30, tzinfo=UTC)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_request_waits_for_the_controller(begun: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["retrain", "request", "-m", "new shops"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("requested: new shops (person-")
    assert "no retrain controller runs here; it is taken up when one starts: tunectl retrain controller\n" in out
    book = RunStore(ProjectPaths().retrain)
    with lock.file_lock(book.root / LOCK, "tunectl retrain controller"):
        assert main(["retrain", "request", "--message", "again", "--ignore-limits", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["controller"] is True
    first, second = book.list_pending_triggers()
    assert (first.kind, first.message, first.ignore_limits) == ("person", "new shops", False)
    assert (second.id, second.message, second.ignore_limits) == (found["trigger"], "again", True)


def test_a_request_needs_a_message(begun: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["retrain", "request"])
    assert caught.value.code == 2
    assert "-m/--message" in capsys.readouterr().err


def test_status_shows_runs_and_what_waits_and_changes_nothing(
    begun: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["retrain", "status"]) == 0
    assert capsys.readouterr().out == "no retrain yet\nno retrain controller runs here: tunectl retrain controller\n"
    book = RunStore(ProjectPaths().retrain)
    for number, state in enumerate(("dismissed", "data_gate")):
        run = new_run(f"{number}" * 64, 1, Trigger("alert", f"a{number}", NOW, "new shops"), NOW, {})
        book.save(apply_transition(run, Transition(state, NOW + timedelta(hours=number), "not now")))
    resolved = Trigger("alert", "a0", NOW, "new shops")
    book.enqueue_trigger(Trigger("schedule", "quarter", NOW, "the quarter is over"))
    book.enqueue_trigger(resolved)
    atomic_io.write_json(
        book.root / "outcomes" / "a0.json", TriggerOutcome(resolved, NOW)
    )  # killed before it left the inbox
    before = files(Path())
    assert main(["retrain", "status", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["controller"] == "never"
    shown = [[row[name] for name in ("id", "state", "at", "trigger", "why", "reason")] for row in found["runs"]]
    assert shown == [
        [f"{str(number) * 12}-1", state, f"2026-05-01T{hour}:00Z", "alert", "new shops", "not now"]
        for number, state, hour in ((1, "data_gate", "10:30"), (0, "dismissed", "09:30"))
    ]
    assert [row["id"] for row in found["pending"]] == ["quarter"]
    assert main(["retrain", "status", "-n", "1"]) == 0
    out = capsys.readouterr().out
    assert "111111111111-1" in out
    assert "000000000000-1" not in out
    assert "pending since 2026-05-01 09:30 UTC: schedule, the quarter is over\n" in out
    assert files(Path()) == before

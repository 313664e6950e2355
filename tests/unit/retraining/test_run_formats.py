"""Records of retraining that tunectl 0.1 left open as they are, and are written anew by whoever holds the lock."""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import version_0_1
from msgspec import to_builtins
from version_0_1 import expected, renamed

from tunectl.artifacts.record_format import NewerRecordError
from tunectl.canary.canary_store import CanaryStore
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining import report, signed_links
from tunectl.retraining.run_store import ApprovalDecision, RunStore
from tunectl.retraining.state_machine import CONCLUDED, NEXT, Transition, apply_transition

TOLD = expected("retrain")
DATA = {"lessons": "examples", "new": "new_examples", "people": "annotators", "held": "held_out", "left": "left_out"}
NOW = datetime.fromisoformat("2026-10-04T12:00:00+00:00")


@pytest.fixture
def book(tmp_path: Path) -> RunStore:
    return RunStore(version_0_1.copy_project(tmp_path / "project") / ".tunectl" / "retrain")


def state(name: str) -> str:
    return "withdrawn" if name == "rolled_back" else name


def trigger_of_today(was: dict[str, Any]) -> dict[str, Any]:
    return renamed(was, why="message", by="author", urgent="ignore_limits")


def window_of_today(was: dict[str, Any]) -> dict[str, Any]:
    found = renamed(was, required="required_windows", moved="shifted", slices="segments", last="previous_p_values")
    words = {"adjusted": "adjusted_p_value", "floor": "effect_floor", "moved": "shifted"}
    return {**found, "signals": {name: renamed(one, **words) for name, one in was.get("signals", {}).items()}}


def run_of_today(was: dict[str, Any]) -> dict[str, Any]:
    steps = []
    for one in was["steps"]:
        step = {**renamed(one, why="message"), "state": state(one["state"])}
        facts = one.get("facts", {})
        if "lessons" in facts:
            step["facts"] = renamed(facts, **DATA)
        elif "question" in facts:
            step["facts"] = renamed(facts, why="message")
            if "data" in facts:
                step["facts"]["data"] = renamed(facts["data"], **DATA)
        elif "experiment" in facts:
            step["facts"] = renamed(facts, experiment="canary")
        if "snapshot" in facts:
            step["facts"] = {
                **step["facts"],
                "snapshot": renamed(facts["snapshot"], at="created_at", exchanges="inferences"),
            }
        if "window" in facts:
            step["facts"] = {**step["facts"], "window": window_of_today(facts["window"])}
        steps.append(step)
    return {**was, "trigger": trigger_of_today(was["trigger"]), "steps": steps}


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def test_runs_and_triggers_are_those_of_0_1(book: RunStore) -> None:
    runs = {run.id: run for run in book.runs()}
    assert {name: (run.state, [step.state for step in run.steps]) for name, run in runs.items()} == {
        name: (state(was["state"]), [state(one) for one in was["steps"]]) for name, was in TOLD["states"].items()
    }
    for was in TOLD["runs"]:
        assert to_builtins(runs[f"{was['key'][:12]}-{was['attempt']}"]) == run_of_today(was)
    assert [to_builtins(one) for one in book.list_pending_triggers()] == [
        trigger_of_today(one) for one in TOLD["waiting"]
    ]
    outcomes = [
        {**renamed(one, words="detail"), "trigger": trigger_of_today(one["trigger"])} for one in TOLD["settled"]
    ]
    found = {one.trigger.id: to_builtins(one) for one in book.list_outcomes()}
    assert found == {one["trigger"]["id"]: one for one in outcomes}
    for was in TOLD["settled"]:
        assert book.get_outcome(was["trigger"]["id"]) is not None, "the same trigger would start a second run"


def test_decisions_and_marks_are_those_of_0_1(book: RunStore) -> None:
    for name, was in TOLD["answers"].items():
        run, _, question = name.rpartition("-")
        found = book.get_decision(run, question)
        assert to_builtins(found) == {**renamed(was, yes="approved", by="author"), "message": ""}
        assert not book.record_decision(run, question, ApprovalDecision(not was["yes"], NOW, "Eve", "x"))
        assert book.get_decision(run, question) == found
    assert {name: f"{at:%Y-%m-%dT%H:%M:%SZ}" for name, at in book.get_schedule_marks().items()} == TOLD["calendar"]


def test_links_that_0_1_signed_are_open(book: RunStore) -> None:
    secret = (book.root / "secret").read_text().strip()
    token = TOLD["link"]["address"].rpartition("/")[2]
    found = signed_links.verify(token, secret.encode(), datetime.fromisoformat(TOLD["link"]["read_at"]))
    assert to_builtins(found) == TOLD["link"]["stands_for"]


def test_reports_of_retrains_are_those_of_0_1(book: RunStore) -> None:
    canaries = CanaryStore(ReleaseRegistry(book.root.parent / "releases"))
    for run in book.runs():
        was = TOLD["stories"][run.id]
        experiment = next((one for one in canaries.all() if one.run == run.id), None)
        found = report.build_report(run, experiment)
        assert (found.why, found.end, found.began) == (was["why"], was["end"], was["began"])
        names = [["canary" if name == "experiment" else name, rows] for name, rows in was["chapters"]]
        assert [[section.name, len(section.rows)] for section in found.sections] == names


@pytest.mark.parametrize("name", sorted(TOLD["open_runs"]))
def test_a_run_that_was_open_goes_on_from_where_it_stood(tmp_path: Path, name: str) -> None:
    shutil.copytree(version_0_1.DATA / "open_runs" / name, tmp_path / "book")
    book = RunStore(tmp_path / "book")
    (run,) = book.runs()
    assert (run.id, run.state) == (TOLD["open_runs"][name]["run"], TOLD["open_runs"][name]["state"])
    after = min(NEXT[run.state] - {"failed"})
    book.save(apply_transition(run, Transition(after, NOW)))
    assert files(book.root / "runs") == {TOLD["open_runs"][name]["file"]}
    (again,) = book.runs()
    assert again.steps[:-1] == run.steps
    written = json.loads((book.root / "runs" / TOLD["open_runs"][name]["file"]).read_text())
    assert (written["version"], "why" in written["trigger"]) == (2, False)


def test_whoever_holds_the_lock_moves_what_0_1_left(book: RunStore) -> None:
    outcomes, marks = book.list_outcomes(), book.get_schedule_marks()
    decisions = {path.name: path for path in (book.root / "answers").iterdir()}
    book.adopt_old_names()
    assert (book.list_outcomes(), book.get_schedule_marks()) == (outcomes, marks)
    assert (files(book.root / "seen"), files(book.root / "answers")) == (set(), set())
    assert files(book.root / "approvals") == set(decisions)
    assert not (book.root / "calendar.json").exists()
    for path in [
        *(book.root / "outcomes").iterdir(),
        *(book.root / "approvals").iterdir(),
        book.root / "schedule_marks.json",
    ]:
        assert json.loads(path.read_text())["version"] == 2, path
    book.adopt_old_names()
    assert book.list_outcomes() == outcomes


def test_a_move_that_is_cut_off_shows_each_record_once(book: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes, unlink, left = book.list_outcomes(), Path.unlink, [3]

    def cut(path: Path, missing_ok: bool = False) -> None:
        if path.parent.name == "seen":
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", cut)
    with pytest.raises(KeyboardInterrupt):
        book.adopt_old_names()
    monkeypatch.undo()
    assert sorted(map(str, book.list_outcomes())) == sorted(map(str, outcomes))
    book.adopt_old_names()
    assert sorted(map(str, book.list_outcomes())) == sorted(map(str, outcomes))


def test_each_record_is_read_once_while_it_stays_the_same(book: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scrape every few seconds asks for all runs and outcomes since the project began."""
    runs, outcomes, read = book.runs(), book.list_outcomes(), list[Path]()
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or real(path))
    assert (book.runs(), book.list_outcomes(), read) == (runs, outcomes, [])
    book.save(runs[-1])
    book.runs()
    assert len(read) == 1
    assert len(runs) > 1


def test_a_challenger_that_was_withdrawn_is_a_conclusion() -> None:
    assert "withdrawn" in CONCLUDED
    assert "withdrawn" in NEXT["canary"]


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("runs/00000-6928cc7f5b22-1.json", RunStore.runs),
        ("inbox/person-16.json", RunStore.list_pending_triggers),
        ("seen/person-1.json", RunStore.list_outcomes),
        ("answers/6928cc7f5b22-1-retrain.json", lambda book: book.get_decision("6928cc7f5b22-1", "retrain")),
    ],
)
def test_what_a_later_tunectl_wrote_is_refused_by_name(book: RunStore, name: str, read: Any) -> None:
    path = book.root / name
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))
    with pytest.raises(NewerRecordError, match=rf"{name} is a .* of version 99; this tunectl reads versions up to 2"):
        read(book)

"""``tunectl status`` of the loop: real records, a real inference log, and words for everything that is there or not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from conf_copy import copy_conf
from msgspec import to_builtins
from msgspec.structs import replace

from tunectl.artifacts import lock
from tunectl.artifacts.canary_state import CanaryState
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import DriftSignal, DriftWindow, Feedback, InferenceRecord
from tunectl.backends.storage import inference_log_sql
from tunectl.backends.vcs import git_worktree
from tunectl.canary.canary_store import CanaryRecord, CanaryStore
from tunectl.canary.sequential_test import SequentialTestRules
from tunectl.cli.main import main
from tunectl.config.loading import checks
from tunectl.config.schema.root import TunectlConfig
from tunectl.inference_log.log_store import LogEvent, TimeWindow
from tunectl.monitoring.window import REFERENCE_SET, accept
from tunectl.pipeline import stage_status
from tunectl.pipeline.stage_status import StageChange, StageStatus
from tunectl.pipeline.stages import STAGES
from tunectl.registry.release_manifest import BuildFacts
from tunectl.registry.release_state import ChampionPointer
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining import signed_links, state_machine
from tunectl.retraining.run_store import LOCK, ApprovalDecision, RunStore
from tunectl.retraining.state_machine import RetrainRun, Transition, Trigger
from tunectl.status import collect
from tunectl.status.status_report import Drift, NextSchedule, PendingApproval, Retrain, StatusReport, Traffic
from tunectl.status.status_text import format_rows, humanize_age

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
URL = "sqlite:///.tunectl/inference_log/inference_log.sqlite"
ALERT = Trigger("alert", "alert-1", NOW - timedelta(hours=2), "something moved in 3 windows", "Alertmanager")


@pytest.fixture(scope="module")
def root() -> TunectlConfig:
    return checks.load_config(ProjectPaths(ROOT)).root


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TUNECTL_INFERENCE_LOG_URL", "TUNECTL_REGISTRY"):
        monkeypatch.delenv(name, raising=False)


def release(folder: Path) -> str:
    """A store with a champion; its name."""
    source = folder / "source"
    source.mkdir()
    (source / "weights").write_text("1")
    store = ReleaseRegistry(ProjectPaths(folder).releases)
    made = store.add(source, BuildFacts("shop", "transformers", "adapter"))
    store.promote(made.id, author="ann", message="the first one")
    return made.id


def window(release: str, number: int, verdict: str = "ok", size: int = 300) -> TimeWindow:
    until = NOW - timedelta(hours=10 - number)
    signals = {
        "prompt_text": DriftSignal("prompt_text", "mmd", 300, 1000, 0.4, 0.1, 0.0005, shifted=verdict == "drift")
    }
    body = DriftWindow(
        f"{number:016x}", until - timedelta(hours=1), until, size, verdict,
        verdict == "drift", release, "training", signals, evidence=4.2 if verdict == "drift" else 0.3, reason="prompt_text moved" if verdict == "drift" else "",
    )  # fmt: skip
    return TimeWindow(body.id, body.since, body.until, until, to_builtins(body))


def traffic(folder: Path, *windows: TimeWindow) -> None:
    """Three requests, one of them without an answer, one of two days ago."""
    (folder / ".tunectl" / "inference_log").mkdir(parents=True, exist_ok=True)
    with inference_log_sql.open_log(URL, folder) as live:
        for number, minutes in enumerate((3000, 30, 3)):
            at = NOW - timedelta(minutes=minutes)
            answered = {"finished_at": at, "response": {}} if number < 2 else {}
            live.write([InferenceRecord(f"chatcmpl-{number}", at, "champion", "r", "t", {}, f"u{number}", **answered)])
        live.write([Feedback("f", "chatcmpl-1", "edit", "better", NOW, "ann")])
        for one in windows:
            live.add_window(one)


def asked(question: signed_links.ApprovalQuestion = "retrain", hours: float = 4) -> RetrainRun:
    """A retrain that waits for a person."""
    run = state_machine.new_run("a" * 64, 1, ALERT, ALERT.at, {})
    told = {"question": question, "until": (NOW + timedelta(hours=hours)).isoformat(), "nonce": "0123456789abcdef"}
    return state_machine.apply_transition(
        run, Transition("awaiting_approval", NOW - timedelta(hours=1), "a person is asked", told)
    )


def promoted(**facts: str) -> RetrainRun:
    run = state_machine.new_run("b" * 64, 1, Trigger("schedule", "s", NOW - timedelta(days=9), "monthly"), NOW, {})
    states = ("data_gate", "training", "evaluating", "staged")
    for state in states:
        run = state_machine.apply_transition(run, Transition(state, NOW))
    return state_machine.apply_transition(
        run, Transition("promoted", NOW - timedelta(days=8), "3 points better", facts)
    )


def test_where_nothing_ever_ran_everything_says_so_and_nothing_is_made(tmp_path: Path, root: TunectlConfig) -> None:
    found = collect.collect_status(ProjectPaths(tmp_path), root, NOW)
    assert found == StatusReport(approval="required", budget=(0, 3))
    assert list(tmp_path.iterdir()) == []
    assert list(format_rows(found, NOW)) == [
        ("champion", "none, there is no release yet"),
        ("traffic", "nobody has asked anything here yet: tunectl serve"),
        ("drift", "no monitor has run here: tunectl monitor"),
        ("last retrain", "none yet"),
        (
            "next retrain",
            "nothing is scheduled; on drift, once a person says yes; no retrain controller has run here: tunectl retrain controller",
        ),
        ("waits for you", "nothing"),
    ]


def test_records_and_live_store_are_read(tmp_path: Path, root: TunectlConfig) -> None:
    layout, name = ProjectPaths(tmp_path), release(tmp_path)
    traffic(tmp_path, window(name, 1), window(name, 2, "drift"), window("another", 3))
    book = RunStore(layout.retrain)
    book.save(promoted())
    book.save(asked())
    (layout.retrain / "secret").write_text("s" * 64 + "\n")
    found = collect.collect_status(layout, root, NOW)
    assert found.troubles == {}
    assert (found.champion.release, found.releases) == (name, 1)
    assert found.traffic == Traffic(24, 2, 1, 2, {"edit": 1}, NOW - timedelta(minutes=3))
    assert (found.drift.verdict, found.drift.signals, found.drift.release) == ("drift", ["prompt_text"], name)
    assert (found.last.state, found.last.reason) == ("promoted", "3 points better")
    assert (found.now.state, found.now.why) == ("awaiting_approval", ALERT.message)
    question, reference = found.waits
    assert question.what == "Retrain the model? something moved in 3 windows"
    given = signed_links.verify(question.link.rpartition("/")[2], b"s" * 64, NOW)
    assert (given.run, given.question, given.nonce) == (found.now.id, "retrain", "0123456789abcdef")
    assert reference.what.endswith(f"tunectl monitor set-reference {3:016x}")
    assert json.loads(json.dumps(to_builtins(found)))["drift"]["evidence"] == 4.2


def test_an_answer_a_closed_question_and_an_accepted_window_wait_for_nobody(
    tmp_path: Path, root: TunectlConfig
) -> None:
    layout = ProjectPaths(tmp_path)
    traffic(tmp_path, window("r", 1))
    with inference_log_sql.open_log(URL, tmp_path) as live:
        live.add_event(LogEvent("e", NOW, REFERENCE_SET, accept([f"{1:016x}"], author="ann", message="")))
    book, run = RunStore(layout.retrain), asked()
    book.save(run)
    assert [one.link for one in collect.collect_status(layout, root, NOW).waits] == [None], "no secret, no link"
    assert collect.collect_status(layout, root, NOW + timedelta(hours=5)).waits == []
    book.record_decision(run.id, "retrain", ApprovalDecision(True, NOW, "ann", "n"))
    assert collect.collect_status(layout, root, NOW).waits == []


def test_what_a_retrain_left_to_be_merged_waits(
    tmp_path: Path, root: TunectlConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    RunStore(ProjectPaths(tmp_path).retrain).save(promoted(branch="tunectl/retrain/b-1"))
    for unmerged in (True, False):
        monkeypatch.setattr(
            git_worktree, "has_unmerged_commits", lambda _root, branch, left=unmerged: left and "b-1" in branch
        )
        waits = collect.collect_status(ProjectPaths(tmp_path), root, NOW).waits
        assert ["git merge tunectl/retrain/b-1" in one.what for one in waits] == [True] * unmerged


def test_without_a_controller_what_it_should_do_waits_for_somebody_to_start_it(
    tmp_path: Path, root: TunectlConfig
) -> None:
    layout, name = ProjectPaths(tmp_path), release(tmp_path)
    book, canaries = RunStore(layout.retrain), CanaryStore(ReleaseRegistry(layout.releases))
    book.enqueue_trigger(Trigger("person", "person-1", NOW, "new shops"))
    rules = SequentialTestRules(0.2, 0.0, 0.05, 0.05, 0.05, 50, None)
    canaries.write(CanaryRecord("e1", "c" * 16, name, "click", rules, 24.0, 5.0, NOW, NOW, "salt", "ann", "try"))
    with (
        lock.file_lock(layout.retrain / LOCK, "tunectl retrain controller"),
        lock.file_lock(layout.monitor_lock, "tunectl monitor"),
    ):
        found = collect.collect_status(layout, root, NOW)
        assert (found.controller, found.monitor, found.waits) == ("runs", "runs", [])
    found = collect.collect_status(layout, root, NOW)
    assert (found.controller, found.monitor) == ("stopped", "stopped")
    assert [one.what.partition(" ")[0] for one in found.waits] == ["1", "canary"]
    assert dict(format_rows(found, NOW))["drift"] == "no window of traffic is closed yet; no monitor runs here"
    assert dict(format_rows(found, NOW))["next retrain"].endswith("; no retrain controller runs here")


def test_calendar_cooldown_and_budget(tmp_path: Path, root: TunectlConfig) -> None:
    schedules = {"spring": {"cron": "monthly", "zone": "UTC"}, "nightly": {"cron": "0 3 * * *", "zone": "UTC"}}
    settings = type(root.retrain).model_validate(
        {
            **root.retrain.model_dump(),
            "schedules": schedules,
            "approval": {**root.retrain.approval.model_dump(), "training": "none"},
        }
    )
    declared = root.model_copy(update={"retrain": settings})
    book = RunStore(ProjectPaths(tmp_path).retrain)
    book.set_schedule_marks({"spring": NOW, "nightly": NOW - timedelta(days=2)})
    run = promoted()
    book.save(replace(run, steps=[*run.steps[:-1], Transition("rejected", NOW - timedelta(hours=1), "no better")]))
    found = collect.collect_status(ProjectPaths(tmp_path), declared, NOW)
    assert [(one.schedule, one.at.day) for one in found.next] == [("nightly", 30), ("spring", 1)]
    assert found.rests_until == NOW + timedelta(hours=47), "twice the cooldown after a rejection"
    assert found.budget == (1, 3)
    assert dict(format_rows(found, NOW))["next retrain"] == (
        "was due 2026-04-30 03:00 UTC (nightly: 0 3 * * *); due 2026-06-01 03:00 UTC (spring: monthly); on drift; "
        "not before 2026-05-03 11:00 UTC; no retrain controller has run here: tunectl retrain controller"
    )


def test_what_cannot_be_told_hides_nothing_else(tmp_path: Path, root: TunectlConfig) -> None:
    layout, name = ProjectPaths(tmp_path), release(tmp_path)
    (tmp_path / ".tunectl" / "inference_log").mkdir()
    (tmp_path / ".tunectl" / "inference_log" / "inference_log.sqlite").write_bytes(b"no database" * 100)
    RunStore(layout.retrain).save(promoted())
    next((layout.retrain / "runs").iterdir()).write_text('{"key": ')
    found = collect.collect_status(layout, root, NOW)
    assert found.champion.release == name
    assert set(found.troubles) == {"live", "retrains"}
    told = dict(format_rows(found, NOW))
    assert told["traffic"].startswith("cannot be told: inference log sqlite:///")
    assert told["last retrain"].startswith("cannot be told: ")
    assert told["champion"].startswith(name)


WHOLE = StatusReport(
    champion=ChampionPointer("4f1c9a7be2d05318", None, "2026-04-20T10:00:00+00:00", "ann", "retrain b-1: monthly", 2),
    challenger=CanaryState("b83e60d1f7a94c22", 0.2, "salt"),
    releases=3,
    traffic=Traffic(24, 1204, 1201, 310, {"edit": 3, "thumb": 40}, NOW - timedelta(seconds=40)),
    monitor="runs",
    drift=Drift("w", "4f1c9a7be2d05318", "drift", "prompt_text moved", NOW, 300, 4.2, 3.0, ["prompt_text"]),
    controller="runs",
    approval="none",
    now=Retrain("a-1", "canary", NOW, "alert", "something moved", "20% of the identities"),
    last=Retrain("b-1", "promoted", NOW, "schedule", "monthly", "3 points better"),
    next=[NextSchedule("spring", "monthly", NOW + timedelta(days=31))],
    budget=(3, 3),
    waits=[PendingApproval("Promote?", NOW + timedelta(hours=72), "http://127.0.0.1:3200/decide/x.y")],
)


def test_windows_too_small_for_the_declared_change_are_in_the_line() -> None:
    drift = Drift("w", "4f1c9a7be2d05318", "ok", "none of 13 signals shifted", NOW, 60, 0.4, 3.0, [], too_small_for=0.2)
    line = dict(format_rows(replace(WHOLE, drift=drift), NOW))["drift"]
    assert "(too small for a change of 0.2: tunectl monitor calibrate)" in line


def test_words_of_everything() -> None:
    assert list(format_rows(WHOLE, NOW)) == [
        ("champion", "4f1c9a7be2d05318, since 2026-04-20T10:00 (retrain b-1: monthly)"),
        ("challenger", "b83e60d1f7a94c22, 20% of the identities"),
        (
            "traffic",
            "1,204 requests of 310 people in 24 h, 3 of them without an answer, the newest 40 s ago; feedback: 3 edit, 40 thumb",
        ),
        ("drift", "drift, evidence 4.2 of 3.0, in 300 rows until 2026-05-01 12:00 UTC: prompt_text moved"),
        ("last retrain", "b-1 promoted, 2026-05-01 12:00 UTC (schedule: monthly); 3 points better"),
        ("retrain now", "a-1 canary, 2026-05-01 12:00 UTC (alert: something moved); 20% of the identities"),
        (
            "next retrain",
            "due 2026-06-01 12:00 UTC (spring: monthly); on drift; 3 of 3 that a week allows have run",
        ),
        ("waits for you", "Promote?; until 2026-05-04 12:00 UTC: http://127.0.0.1:3200/decide/x.y"),
    ]


@pytest.mark.parametrize(
    ("change", "part", "words"),
    [
        ({"champion": None}, "champion", "none of 3 releases"),
        ({"traffic": Traffic(24, 0, 0, 0, {}, NOW - timedelta(days=3))}, "traffic", "none in 24 h; the newest 3 d ago"),
        ({"traffic": Traffic(24, 1, 1, 1, {}, NOW)}, "traffic", "1 requests of 1 person in 24 h, the newest 0 s ago"),
        ({"monitor": "stopped"}, "drift", "prompt_text moved; no monitor runs here"),
        (
            {"drift": replace(WHOLE.drift, release="old")},
            "drift",
            "UTC of old, before this champion: prompt_text moved",
        ),
        ({"drift": None}, "drift", "no window of traffic is closed yet"),
        ({"troubles": {"schedules": "cronsim is not installed"}}, "next retrain", "cannot be told: cronsim is not"),
    ],
)
def test_words_of_other_states(change: dict, part: str, words: str) -> None:
    assert words in dict(format_rows(replace(WHOLE, **change), NOW))[part]


def test_ago_is_never_negative() -> None:
    assert [humanize_age(NOW - timedelta(seconds=one), NOW) for one in (-5, 59, 61, 7200, 200_000)] == [
        "0 s", "59 s", "1 min", "2 h", "2 d",
    ]  # fmt: skip


def test_it_is_one_screen_and_the_same_for_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_conf(tmp_path)
    monkeypatch.chdir(tmp_path)
    stage = StageStatus("sft", "stale", [StageChange("sft.lora_rank", 16, 32)] * 30, 71.5, "no " * 90)
    stages = [replace(stage, stage=one.name) for one in STAGES]
    monkeypatch.setattr(stage_status, "list_stage_status", lambda _layout, _root: stages)
    monkeypatch.setattr(collect, "collect_status", lambda *_: WHOLE)
    assert main(["status"]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) <= 50
    assert "waits for you" in shown
    assert main(["status", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["stages"]) == len(STAGES)
    expected = {**to_builtins(stages[0]), "why": stage.why}
    assert {name: told["stages"][0][name] for name in expected} == expected, "whole"
    assert told["status"] == json.loads(msgspec.json.encode(WHOLE))

"""The real activities, over a real store and a real inference log: which drift counts, and over whom nobody promotes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from msgspec import to_builtins

from tunectl.access import signatures
from tunectl.access.signatures import TrustedKey, TrustStore
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import DriftWindow, SegmentShift
from tunectl.backends.storage import inference_log_sql
from tunectl.backends.vcs import git_worktree
from tunectl.config.loading import checks
from tunectl.config.loading.override_parsing import Override
from tunectl.core.errors import GateError, InfrastructureError, UsageError
from tunectl.inference_log.log_store import LogEvent, TimeWindow
from tunectl.monitoring import window as windows
from tunectl.registry import release_statement
from tunectl.registry.release_manifest import BuildFacts
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining import promotion_gate, report, state_machine, worktree_build
from tunectl.retraining.local_activities import LocalActivities, settings_digest
from tunectl.retraining.state_machine import RetrainRun, Transition, Trigger
from tunectl.retraining.workspace import RetrainWorkspace

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def root():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return checks.load_config(ProjectPaths(), []).root


@pytest.fixture
def work(tmp_path: Path, root) -> LocalActivities:
    store = ReleaseRegistry(tmp_path / "store")
    for number in range(3):
        folder = tmp_path / f"r{number}"
        folder.mkdir()
        (folder / "weights").write_text(str(number))
        store.add(folder, BuildFacts("shop", "transformers", "adapter"))
    store.promote(store.ids()[0], author="test", message="first")
    return LocalActivities(
        RetrainWorkspace(ProjectPaths(tmp_path)),
        store,
        lambda: inference_log_sql.open_log("sqlite:///inference_log.sqlite", tmp_path),
        root,
    )


def _examined(
    work: LocalActivities, name: str, at: datetime, verdict: str = "drift", release: str | None = None
) -> None:
    champion = work.store.champion().release
    body = DriftWindow(name, at - HOUR, at, 100, verdict, True, release or champion, "training")
    with work._open_log() as live:
        live.add_window(TimeWindow(name, at - HOUR, at, at, to_builtins(body)))


def _drift(work: LocalActivities, now: datetime = NOW) -> str | None:
    found = work.drift(now)
    return found[0].id if found else None


@pytest.mark.parametrize(
    ("override", "counts"),
    [
        ('retrain.train.overrides=["seed=7"]', True),
        ("retrain.train.start=champion", True),
        ("retrain.data.min_new_examples=0", True),
        ("retrain.gate.margin=5", True),
        ("retrain.canary=null", True),
        ("seed=7", True),
        ("retrain.train.max_attempts=5", False),
        ("retrain.limits.max_per_week=9", False),
        ("retrain.approval.training=none", False),
        ("serve.port=4000", False),
    ],
)
def test_a_setting_that_decides_how_a_retrain_ends_makes_it_another_one(root, monkeypatch, override, counts) -> None:
    monkeypatch.chdir(ROOT)
    changed = checks.load_config(ProjectPaths(), [Override.from_cli(override)]).root
    assert (settings_digest(changed, changed.retrain) != settings_digest(root, root.retrain)) is counts


def test_the_newest_window_of_the_champion_counts(work: LocalActivities) -> None:
    assert _drift(work) is None
    _examined(work, "old", NOW - 20 * 24 * HOUR)
    assert _drift(work) == "old", "nothing newer says anything"
    _examined(work, "few", NOW - 2 * HOUR, "insufficient")
    assert _drift(work) == "old"
    _examined(work, "new", NOW - HOUR)
    assert _drift(work) == "new"
    _examined(work, "broken", NOW - HOUR / 2, "error")
    assert _drift(work) == "new", "what could not be examined takes nothing back"
    _examined(work, "calm", NOW, "ok")
    assert _drift(work) is None
    assert _drift(work, NOW + 40 * 24 * HOUR) is None, "and what is a month old is no news"


def test_a_person_who_accepts_another_reference_has_answered_the_drift(work: LocalActivities) -> None:
    _examined(work, "new", NOW)
    _accept(work, NOW - HOUR, "training")
    assert _drift(work) == "new", "it was compared with what was accepted before"
    _accept(work, NOW + HOUR, "new")
    assert _drift(work, NOW + HOUR) is None
    assert work.prepare(Trigger("alert", "a", NOW, "drift"), NOW + HOUR) is None
    _examined(work, "newer", NOW + 2 * HOUR)
    assert _drift(work, NOW + 2 * HOUR) == "newer"


def test_the_record_of_a_retrain_keeps_no_words_of_prompts(work: LocalActivities, root, monkeypatch) -> None:
    """Those of the window in the log are cleared when their rows are erased; nothing clears a copy."""
    monkeypatch.setattr(git_worktree, "revision", lambda _root: "c" * 40)
    monkeypatch.setattr(checks, "load_project_config", lambda _layout: SimpleNamespace(root=root))
    words = [SegmentShift("word:neurofibromatosis", 0.4, 0.0, ["chatcmpl-000001"])]
    body = DriftWindow(
        "w", NOW - HOUR, NOW, 9, "drift", True, work.store.champion().release, "training", segments=words
    )
    with work._open_log() as live:
        live.add_window(TimeWindow("w", NOW - HOUR, NOW, NOW, to_builtins(body)))
    asked = work.prepare(Trigger("poll", "p", NOW, "drift"), NOW)
    assert asked.facts["window"]["id"] == "w"
    assert "neurofibromatosis" not in str(asked)


def _accept(work: LocalActivities, at: datetime, name: str) -> None:
    with work._open_log() as live:
        live.add_event(
            LogEvent(f"accepted-{name}", at, windows.REFERENCE_SET, windows.accept([name], author="Bo", message=""))
        )


def test_without_a_champion_nothing_is_begun_that_could_not_be_compared(tmp_path: Path, root) -> None:
    work = LocalActivities(
        RetrainWorkspace(ProjectPaths(tmp_path)), ReleaseRegistry(tmp_path / "store"), lambda: None, root
    )
    assert work.prepare(Trigger("alert", "a", NOW, "drift"), NOW) is None
    with pytest.raises(UsageError, match="has no champion, so there is nothing to compare a retrain with"):
        work.prepare(Trigger("person", "p", NOW, "why"), NOW)


def test_another_release_and_a_clock_that_was_wrong_say_nothing(work: LocalActivities) -> None:
    _examined(work, "now", NOW)
    _examined(work, "ahead", NOW + 3650 * 24 * HOUR, "ok")
    assert _drift(work) == "now"
    _examined(work, "other", NOW + HOUR, release="f" * 12)
    assert _drift(work) is None


def _run(work: LocalActivities, against: str, **facts: object) -> RetrainRun:
    run = state_machine.new_run("a" * 64, 1, Trigger("person", "p", NOW, "why"), NOW, facts)
    release = work.store.ids()[1]
    told = promotion_gate.GateVerdict("promote", "better", against=against, version=2, leaked=3)
    for step in (
        Transition("data_gate", NOW),
        Transition("training", NOW),
        Transition("evaluating", NOW, "", {"release": release, "branch": "tunectl/retrain/a"}),
        Transition("staged", NOW, "", to_builtins(told)),
    ):
        run = state_machine.apply_transition(run, step)
    return run


def test_over_a_champion_that_was_not_compared_with_nobody_is_promoted(work: LocalActivities) -> None:
    first, challenger, third = work.store.ids()
    run = _run(work, first)
    work.store.promote(third, author="Bo", message="a repair")
    with pytest.raises(GateError) as error:
        work.promote(run, "better", NOW)
    assert str(error.value) == (
        f"release {challenger} was compared with {first}, but the champion is now {third}\n"
        f"  compare it with the new champion: tunectl release propose {challenger}"
    )
    with pytest.raises(GateError, match="was compared with"):  # nor tried on anybody: its win could not count
        work.start_canary(run, NOW)
    assert (work.store.canary(), work.canaries.all()) == (None, [])
    assert work.store.champion().release == third
    assert not work.is_promoted(run)
    work.store.promote(challenger, author="Bo", message="all the same")
    assert work.is_promoted(run)
    assert work.promote(run, "better", NOW)["release"] == challenger


@pytest.mark.parametrize(("rows", "accepted"), [(100, ["detected", "later"]), (20, [])])
def test_the_windows_since_the_change_become_the_reference_where_they_are_enough(
    work: LocalActivities, rows: int, accepted: list[str]
) -> None:
    """One window alone would be a reference with which no change of the declared size is ever seen."""
    first, _, _ = work.store.ids()
    names = ("before", "detected", "later", "error", "other")
    with work._open_log() as live:
        for number, name in enumerate(names):
            since = NOW + number * HOUR
            body = DriftWindow(name, since, since + HOUR, rows, "drift", True, first, "training")
            body = msgspec.structs.replace(
                body,
                verdict="error" if name == "error" else "drift",
                reference="other" if name == "other" else "training",
                changed_since=NOW + HOUR if name == "detected" else None,
            )
            live.add_window(TimeWindow(name, since, since + HOUR, since + HOUR, to_builtins(body)))
    work.promote(_run(work, first, window={"id": "detected"}), "better", NOW + 9 * HOUR)
    with work._open_log() as live:
        bodies = [event.body["windows"] for event in live.events(kind=windows.REFERENCE_SET)]
    assert bodies == ([accepted] if accepted else [])


def test_a_pointer_key_promotes_unattended_and_a_revoked_release_key_stops_it(
    work: LocalActivities, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trusted.json"
    for name, role in (("ci", "release"), ("new", "release"), ("loop", "pointer")):
        key = signatures.generate_key(tmp_path / f"{name}.key")
        signatures.add_trusted_key(path, TrustedKey(name, role, key.public_key, NOW))
    first, challenger, _ = work.store.ids()
    for release in (first, challenger):
        release_statement.sign_release(work.store.folder(release), signatures.load_key(tmp_path / "ci.key"))
    work.store.trust = TrustStore(path)
    monkeypatch.setenv(signatures.POINTER_KEY_ENV, str(tmp_path / "loop.key"))
    run = _run(work, first)
    work.store.start_canary(challenger, share=0.5, author="loop", message="try")
    signatures.revoke_trusted_key(path, "ci")
    with pytest.raises(GateError, match=f"release {challenger}: signed by ci, whose key was revoked"):
        work.promote(run, "better", NOW)
    assert work.store.champion().release == first
    for release in (first, challenger):
        release_statement.sign_release(work.store.folder(release), signatures.load_key(tmp_path / "new.key"))
    assert work.promote(run, "better", NOW)["release"] == challenger
    assert release_statement.check_pointer(work.store.champion(), work.store.trust).reason == "signed by loop"
    pointer = work.store.rollback(author="loop", message="worse")
    assert pointer.release == first
    assert release_statement.check_pointer(pointer, work.store.trust).reason == "signed by loop"


def test_the_report_tells_what_the_golden_set_left_out(work: LocalActivities) -> None:
    bounds = next(section for section in report.build_report(_run(work, "")).sections if section.name == "bounds")
    assert bounds.rows == [("golden set", "version 2", "3 items left out: the challenger has learned them")]


def test_an_end_is_reported_once(work: LocalActivities, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(work, "_notify", told.append, raising=False)
    run = state_machine.apply_transition(_run(work, ""), Transition("rejected", NOW, "worse"))
    for _ in range(2):
        work.notify_finished(run)
    assert told == [f"retrain {run.id} rejected: worse"]
    left = {"left": "the checked-out branch has moved on; merge tunectl/retrain/a by hand"}
    run = state_machine.apply_transition(
        state_machine.apply_transition(_run(work, ""), Transition("canary", NOW)),
        Transition("promoted", NOW, "better", left),
    )
    work.notify_finished(msgspec.structs.replace(run, attempt=2))
    assert told[-1] == f"retrain {run.id[:-2]}-2 promoted: better; {left['left']}"
    change = next(section for section in report.build_report(run).sections if section.name == "change")
    assert ("branch not fast-forwarded", left["left"]) in change.rows


def test_a_gate_without_its_worktree_asks_nothing(
    work: LocalActivities, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worktree_build.git_worktree, "project_path", lambda root, folder: folder)
    run = _run(work, "")
    with pytest.raises(
        InfrastructureError, match=f"is missing, so the training data of retrain {run.id} cannot be verified"
    ):
        worktree_build.check_gate_data(run, work.workspace)

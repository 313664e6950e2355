"""The watcher as a process, on a real project: Git, DVC, SQLite; kill -9 of each party; two at once; out of memory; dirty trees."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import retrain_project

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.storage import inference_log_sql
from tunectl.backends.system import supervised_process
from tunectl.config.loading import checks
from tunectl.inference_log.training_window import FeedbackWindow
from tunectl.registry.release_manifest import BuildFacts
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining import worktree_build
from tunectl.retraining.run_store import RunStore
from tunectl.retraining.workspace import RetrainWorkspace

WINDOW = "w" * 16


@pytest.fixture
def project(tmp_path: Path) -> tuple[Path, ReleaseRegistry, str]:
    folder = tmp_path / "shop"
    store = retrain_project.make(folder)
    champion = store.champion().release
    retrain_project.drift(folder, champion)
    return folder, store, champion


def _once(folder: Path, *words: str, **environment: str) -> int:
    return retrain_project.start(folder, "once", *words, **environment).wait(240)


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout


def _left(folder: Path) -> list[int]:
    mark = str((folder / ".tunectl" / "retrain").absolute())
    return supervised_process.kill_marked(mark)


def test_drift_to_promotion_with_a_branch_a_reference_and_a_history_page(
    project: tuple[Path, ReleaseRegistry, str],
) -> None:
    folder, store, champion = project
    assert _once(folder) == 0, (folder / "log.txt").read_text()
    assert retrain_project.states(folder) == [
        ["proposed", "data_gate", "training", "evaluating", "staged", "promoted"]
    ], (folder / "log.txt").read_text()
    assert store.champion().release != champion
    run = RunStore(folder / ".tunectl" / "retrain").runs()[0]
    assert _git(folder, "rev-parse", "HEAD").strip() == run.facts("evaluating")["commit"]
    assert f"tunectl/retrain/{run.id}" in _git(folder, "branch", "--list", "tunectl/*")
    named = atomic_io.read_json(folder / "inference_log" / "window.json", FeedbackWindow)
    assert [one.window for one in named.snapshots] == [WINDOW]
    assert not (folder / ".tunectl" / "retrain" / "worktree").exists()
    with inference_log_sql.open_log("sqlite:///.tunectl/inference_log/inference_log.sqlite", folder) as live:
        assert [event.body["windows"] for event in live.events(kind="reference_set")] == [[WINDOW]]
        assert [event.body["state"] for event in live.events(kind="retrain")] == ["promoted"]
    assert _once(folder) == 0
    assert len(retrain_project.states(folder)) == 1, "the old champion's drift starts nothing for the new one"


def test_a_rejected_challenger_leaves_champion_branch_and_window_file_alone(
    project: tuple[Path, ReleaseRegistry, str],
) -> None:
    folder, store, champion = project
    before = _git(folder, "rev-parse", "HEAD")
    _once(folder, VERDICT="reject")
    assert retrain_project.states(folder)[0][-1] == "rejected", (folder / "log.txt").read_text()
    assert (store.champion().release, _git(folder, "rev-parse", "HEAD")) == (champion, before)
    assert (folder / "inference_log" / "window.json").read_text() == "null\n"
    assert len(store.ids()) == 2


def test_a_failing_stage_and_a_dirty_tree_say_why(project: tuple[Path, ReleaseRegistry, str]) -> None:
    folder, store, champion = project
    (folder / "trainer.py").write_text("print('changed')")
    _once(folder)
    run = RunStore(folder / ".tunectl" / "retrain").runs()[0]
    assert run.state == "failed"
    assert run.steps[-1].message.endswith("shop differs from its commit: trainer.py")
    _git(folder, "checkout", "--", ".")
    retrain_project.drift(folder, champion, "x" * 16)
    _once(folder, FAKE_TROUBLE="1")
    run = RunStore(folder / ".tunectl" / "retrain").runs()[1]
    assert (run.state, run.steps[-1].message) == ("failed", "tunectl repro ended with exit code 5")
    assert store.champion().release == champion
    assert "CUDA out of memory" in RetrainWorkspace(ProjectPaths(folder)).log_path(run).read_text()


def test_two_watchers_on_one_project(project: tuple[Path, ReleaseRegistry, str]) -> None:
    folder, _, _ = project
    first = retrain_project.start(folder, "on", FAKE_SECONDS="2")
    try:
        _until(folder, "training")
        second = retrain_project.start(folder, "once")
        assert second.wait(120) == 5 or "another retrain controller works here" in (folder / "log.txt").read_text()
        _until(folder, "promoted")
    finally:
        first.terminate()
        first.wait(60)
    assert len(retrain_project.states(folder)) == 1


def _propose(folder: Path, release: str) -> None:
    words = [sys.executable, "-m", "tunectl", "release", "propose", release[:6], "-m", "built on the large machine"]
    subprocess.run(words, cwd=folder, env=retrain_project.ENVIRONMENT, check=True, capture_output=True)


def test_a_release_that_somebody_proposes_goes_through_the_same_gate(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    store = retrain_project.make(folder)
    other = folder / ".tunectl" / "second"
    other.mkdir()
    (other / "weights").write_text("second")
    made = store.add(other, BuildFacts("shop", "transformers", "adapter")).id
    head = _git(folder, "rev-parse", "HEAD")
    _propose(folder, made)
    assert _once(folder, VERDICT="reject") == 0
    _propose(folder, made)
    assert _once(folder) == 0
    assert retrain_project.states(folder) == [["proposed", "data_gate", "training", "evaluating", "rejected"]], (
        "the same release against the same champion is judged once"
    )
    third = folder / ".tunectl" / "third"
    third.mkdir()
    (third / "weights").write_text("third")
    made = store.add(third, BuildFacts("shop", "transformers", "adapter")).id
    _propose(folder, made)
    assert _once(folder) == 0
    assert retrain_project.states(folder)[1:] == [
        ["proposed", "data_gate", "training", "evaluating", "staged", "promoted"]
    ], (folder / "log.txt").read_text()
    run = RunStore(folder / ".tunectl" / "retrain").runs()[-1]
    assert (run.trigger.release, run.trigger.message, store.champion().release) == (
        made, "built on the large machine", made,
    )  # fmt: skip
    assert (_git(folder, "rev-parse", "HEAD"), (folder / "inference_log" / "window.json").read_text()) == (
        head,
        "null\n",
    )
    assert not (folder / ".tunectl" / "retrain" / "worktree").exists()


def test_training_goes_on_from_the_champion_where_that_is_declared(tmp_path: Path) -> None:
    layout, store = ProjectPaths(tmp_path), ReleaseRegistry(tmp_path / "elsewhere")
    settings = checks.load_config(ProjectPaths(Path(__file__).parents[2])).root.retrain
    warm = settings.model_copy(update={"train": settings.train.model_copy(update={"start": "champion"})})
    assert worktree_build._start(warm, store, layout) == [], "there is no champion yet"
    atomic_io.write_json(tmp_path / "made" / "adapter" / "adapter_config.json", {"r": 4, "lora_alpha": 8})
    (tmp_path / "made" / "adapter" / "adapter_model.safetensors").write_text("weights")
    made = store.add(tmp_path / "made", BuildFacts("shop", "transformers", "adapter")).id
    store.promote(made, author="test", message="the first")
    assert worktree_build._start(settings, store, layout) == []
    for _ in range(2):
        assert worktree_build._start(warm, store, layout) == [f"sft.init_adapter=.tunectl/init_adapters/{made}"]
    place = tmp_path / ".tunectl" / "init_adapters" / made
    assert sorted(path.name for path in place.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


def _until(folder: Path, state: str, most: float = 200) -> None:
    end = time.monotonic() + most
    while not any(state in states for states in retrain_project.states(folder)):
        assert time.monotonic() < end, (folder / "log.txt").read_text()
        time.sleep(0.05)


@pytest.mark.parametrize("party", ["watcher", "guard", "repro", "dvc", "trainer"])
def test_kill_nine_of_each_party(project: tuple[Path, ReleaseRegistry, str], party: str) -> None:
    folder, store, champion = project
    dice = random.Random(party)
    watcher = retrain_project.start(folder, "on", FAKE_SECONDS="3")
    try:
        _until(folder, "training")
        end = time.monotonic() + 60
        while not (victims := retrain_project.parties(watcher.pid)[party]) and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(dice.random())
        for pid in victims:
            subprocess.run(["kill", "-9", str(pid)], check=False)
        if party != "watcher":
            _ended(folder)
    finally:
        watcher.send_signal(signal.SIGKILL)
        watcher.wait()
    assert store.champion().release == champion
    assert store.verify(champion) == []
    _once(folder)
    states = retrain_project.states(folder)
    if states[-1][-1] == "failed":
        retrain_project.drift(folder, champion, "y" * 16)
        _once(folder)
    assert retrain_project.states(folder)[-1][-1] == "promoted", (folder / "log.txt").read_text()
    assert _left(folder) == []
    assert store.champion().release != champion


def _ended(folder: Path) -> None:
    end = time.monotonic() + 120
    while retrain_project.states(folder)[-1][-1] == "training" and time.monotonic() < end:
        time.sleep(0.05)

"""``tunectl sweep`` from one end to the other: real Git, DVC and Optuna around stages of milliseconds."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sweep_project as project
import yaml

from tunectl.artifacts import lock
from tunectl.artifacts.paths import ProjectPaths

pytest.importorskip("optuna")
SMALL = ("sweep.n_trials=5", "sweep.pruner.min_resource=2", "sweep.pruner.reduction_factor=2", "sweep.sampler=random")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a sweep of five trials."""
    found = project.make(tmp_path_factory.mktemp("sweep") / "shop")
    (found / "printed.txt").write_text(project.tunectl(found, "sweep", "run", *SMALL))
    return found


def shown(folder: Path) -> dict:
    return json.loads(project.tunectl(folder, "sweep", "show", "--json"))


def test_trials_end_finished_or_pruned_and_the_first_is_the_start(folder: Path) -> None:
    trials = shown(folder)["trials"]
    assert [trial["number"] for trial in trials] == [0, 1, 2, 3, 4]
    assert {trial["state"] for trial in trials} == {"complete", "pruned"}
    assert trials[0]["start"]
    assert trials[0]["overrides"] == []
    assert trials[0]["settings"] == {"sft.learning_rate": 0.001, "sft.lora_rank": 16}


def test_stages_that_a_trial_does_not_change_come_from_the_cache_and_the_share_is_printed(folder: Path) -> None:
    trials = shown(folder)["trials"]
    # a pruned sft, too, was not reused
    assert [(trial["reused"], trial["stages"]) for trial in trials] == [(7, 7)] + [(6, 7)] * 4
    assert "stages (" in (folder / "printed.txt").read_text()
    assert "came from DVC's cache" in (folder / "printed.txt").read_text()


def test_a_pruned_stage_is_not_cached(folder: Path) -> None:
    trials = shown(folder)["trials"]
    losses = {json.loads(path.read_text()).get("validation_loss") for path in folder.rglob("metrics/sft.json")}
    assert losses == {0.516}  # nothing of a trial is in the project itself
    adapters = {path.read_text() for path in (folder / ".dvc" / "cache").rglob("*") if path.is_file()}
    for trial in trials:
        if trial["state"] == "pruned":
            rate, rank = trial["settings"]["sft.learning_rate"], trial["settings"]["sft.lora_rank"]
            assert str(abs(math.log10(rate) + 3.5) + rank / 1000) not in adapters


def test_the_best_trial_is_compared_with_the_start_once_on_the_test_split(folder: Path) -> None:
    summary = shown(folder)
    found = summary["confirmation"]
    assert found["trial"] == summary["best"][0]
    assert (found["system"], found["metric"], found["inputs"]) == ("tuned", "bleu", 40)
    assert found["low"] < found["best"] - found["start"] < found["high"]
    assert found["verdict"] == "better"
    assert f"on test: trial {found['trial']} has bleu " in (folder / "printed.txt").read_text()
    assert (folder / "printed.txt").read_text().count("confirming trial") == 1


def test_no_worktree_is_left_and_the_tree_is_as_it_was(folder: Path) -> None:
    done = subprocess.run(["git", "worktree", "list"], cwd=folder, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert changed.stdout == ""


def test_the_same_command_has_nothing_to_do(folder: Path) -> None:
    text = project.tunectl(folder, "sweep", "run", *SMALL)
    assert "5 of 5 trials" in text
    assert "confirming" not in text
    assert len(shown(folder)["trials"]) == 5


def test_a_trial_is_taken_over_into_the_overrides(folder: Path) -> None:
    trial = next(trial for trial in shown(folder)["trials"] if trial["state"] == "complete" and not trial["start"])
    before = (folder / "conf" / "overrides.yaml").read_text()
    try:
        text = project.tunectl(folder, "sweep", "take", "default", str(trial["number"]))
        assert "build with them: tunectl repro" in text
        assert yaml.safe_load((folder / "conf" / "overrides.yaml").read_text()) == trial["overrides"]
        text = project.tunectl(folder, "sweep", "take", "default", "77", code=2)
        assert "trial 77 of default does not exist" in text
    finally:
        (folder / "conf" / "overrides.yaml").write_text(before)


def test_a_trial_is_not_taken_over_beside_a_build(folder: Path) -> None:
    trial = next(trial for trial in shown(folder)["trials"] if trial["state"] == "complete" and not trial["start"])
    before = (folder / "conf" / "overrides.yaml").read_text()
    with lock.file_lock(ProjectPaths(folder).repro_lock, "tunectl repro"):
        text = project.tunectl(folder, "sweep", "take", "default", str(trial["number"]), code=5)
    assert "another run is working in this project: tunectl repro" in text
    assert (folder / "conf" / "overrides.yaml").read_text() == before


def test_the_page_is_written(folder: Path, tmp_path: Path) -> None:
    project.tunectl(folder, "sweep", "show", "--plot", str(tmp_path / "sweep.html"))
    assert "<svg" in (tmp_path / "sweep.html").read_text()


def test_changes_that_are_not_committed_are_refused_for_a_new_sweep(folder: Path) -> None:
    file = folder / "conf" / "sft" / "lora.yaml"
    before = file.read_text()
    try:
        file.write_text(before + "# a change\n")
        text = project.tunectl(folder, "sweep", "run", "sweep.name=second", code=2)
    finally:
        file.write_text(before)
    assert "differs from its commit: conf/sft/lora.yaml" in text


def test_a_sweep_that_is_interrupted_gives_its_trial_back_and_goes_on(tmp_path: Path) -> None:
    folder = project.make(tmp_path / "shop")
    words = [
        sys.executable,
        "-m",
        "tunectl",
        "sweep",
        "run",
        "sweep.n_trials=2",
        "sweep.pruner=null",
        "sweep.start=none",
    ]
    process = subprocess.Popen(words, cwd=folder, env={**project.ENVIRONMENT, "FAKE_SECONDS": "60"})
    end = time.monotonic() + 60
    while not list(folder.glob(".tunectl/sweeps/default/trial-0/.tunectl/stage.lock")):
        assert time.monotonic() < end
        time.sleep(0.1)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    trials = shown(folder)["trials"]
    assert [(trial["state"], trial["attempts"]) for trial in trials] == [("running", 0)]
    overrides = trials[0]["overrides"]
    project.tunectl(folder, *words[3:])
    trials = shown(folder)["trials"]
    assert [(trial["state"], trial["attempts"]) for trial in trials] == [("complete", 1)] * 2
    assert trials[0]["overrides"] == overrides
    assert not list(folder.glob(".tunectl/sweeps/default/trial-*"))


def test_two_workers_stop_and_another_ends_the_sweep(tmp_path: Path) -> None:
    """``sweep stop`` while two workers run: no trial begins, not for ``sweep worker`` either; then ``run`` and a worker go on."""
    folder = project.make(tmp_path / "shop")
    process = start_slow_sweep(folder, "sweep.workers=2", trials=2)
    text = project.tunectl(folder, "sweep", "stop")
    assert text.startswith("default: no more trials begin; ")
    assert process.wait(120) == 0
    ended = shown(folder)["trials"]
    assert 2 <= len(ended) < 5
    assert {trial["state"] for trial in ended} == {"complete"}
    assert "default: 0 trials ended here" in project.tunectl(folder, "sweep", "worker", "default")
    assert len(shown(folder)["trials"]) == len(ended)

    process = start_slow_sweep(folder, "sweep.workers=1", trials=1)
    text = project.tunectl(folder, "sweep", "worker", "default")
    assert process.wait(120) == 0
    trials = shown(folder)["trials"]
    assert [trial["number"] for trial in trials] == list(range(5))
    assert {trial["state"] for trial in trials} == {"complete"}
    assert "default: 0 trials ended here" not in text  # it took one of those that the other command left


def start_slow_sweep(folder: Path, workers: str, *, trials: int) -> subprocess.Popen[bytes]:
    """A sweep of five slow trials, of which ``trials`` run at the same time."""
    words = ["sweep", "run", "sweep.n_trials=5", workers, "sweep.pruner=null", "sweep.confirm=false"]
    environment = {**project.ENVIRONMENT, "FAKE_SECONDS": "3"}
    process = subprocess.Popen([sys.executable, "-m", "tunectl", *words], cwd=folder, env=environment)
    end = time.monotonic() + 120
    while len(list(folder.glob(".tunectl/sweeps/default/trial-*"))) < trials:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    return process


def test_a_metric_that_is_not_there_is_named_with_the_nearest(folder: Path) -> None:
    objective = "sweep.objective=[{metric: sft.best_step, direction: minimize}]"
    text = project.tunectl(folder, "sweep", "run", "sweep.name=other", objective, "sweep.pruner=null", code=2)
    assert "objective sft.best_step: key best_step is not in " in text
    assert "metrics/sft.json; sft has steps, validation_loss" in text

"""Two workers on the real small project, with worktrees and a pruner, that are killed or stalled at random: nothing is lost or left."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sweep_fixtures as fixtures
import sweep_project as project

from tunectl.artifacts import lock
from tunectl.backends.system import supervised_process

pytest.importorskip("optuna")
KILLS, TRIALS = 8, 10
SETTINGS = (f"sweep.n_trials={TRIALS}", "sweep.pruner.min_resource=2", "sweep.pruner.reduction_factor=2")
SETTINGS += ("sweep.sampler=random", "sweep.heartbeat_seconds=1", "sweep.max_attempts=100", "sweep.confirm=false")


def start(folder: Path, *words: str, seconds: str = "6") -> subprocess.Popen[bytes]:
    """Start a worker in a group of its own; its fits take ``seconds``, over eight steps."""
    environment = {**project.ENVIRONMENT, "FAKE_SECONDS": seconds}
    with (folder / ".tunectl" / "workers.txt").open("ab") as output:
        command = [sys.executable, "-m", "tunectl", "sweep", *words]
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )


def read_output(folder: Path) -> str:
    return (folder / ".tunectl" / "workers.txt").read_text()


def shown(folder: Path) -> list[dict]:
    trials: list[dict] = json.loads(project.tunectl(folder, "sweep", "show", "--json"))["trials"]
    return trials


def find_worktrees(folder: Path) -> list[Path]:
    return list(folder.glob(".tunectl/sweeps/default/trial-*"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_trial_is_lost_or_doubled_and_nothing_is_left(tmp_path: Path) -> None:
    folder, dice = project.make(tmp_path / "shop"), random.Random(5)
    workers = [start(folder, "run", *SETTINGS)]
    fixtures.wait_for(lambda: find_worktrees(folder), 120)
    workers.append(start(folder, "worker", "default"))
    for number in range(KILLS):
        time.sleep(dice.uniform(0.5, 4.0))
        victim = dice.choice(range(2))
        assert workers[victim].poll() is None, read_output(folder)
        if number % 4 == 3:  # it is late, its trial is taken over, and it goes on
            os.killpg(workers[victim].pid, signal.SIGSTOP)
            time.sleep(8)
            os.killpg(workers[victim].pid, signal.SIGCONT)
            continue
        if number % 2:
            workers[victim].kill()
        else:  # and what it has just started
            os.killpg(workers[victim].pid, signal.SIGKILL)
        workers[victim].wait()
        workers[victim] = start(folder, "worker", "default")
    for worker in workers:
        assert worker.wait(timeout=240) == 0, read_output(folder)
    trials = shown(folder)
    assert [trial["number"] for trial in trials] == list(range(TRIALS))
    assert {trial["state"] for trial in trials} == {"complete", "pruned"}
    assert len({tuple(trial["overrides"]) for trial in trials}) == TRIALS
    for trial in trials:
        if trial["state"] == "complete":
            rate, rank = trial["settings"]["sft.learning_rate"], trial["settings"]["sft.lora_rank"]
            assert trial["values"] == [pytest.approx(abs(math.log10(rate) + 3.5) + rank / 1000)]
    assert_nothing_is_left(folder)


def assert_nothing_is_left(folder: Path) -> None:
    """No worktree, no lock that anybody holds or that Git would stumble over, and no process."""
    assert not find_worktrees(folder)
    listed = subprocess.run(["git", "worktree", "list"], cwd=folder, capture_output=True, text=True, check=True)
    assert len(listed.stdout.splitlines()) == 1
    assert not list((folder / ".git").rglob("*.lock"))
    assert not [path for path in folder.glob(".tunectl/**/*.lock") if lock.is_locked(path)]
    locks = folder / ".dvc" / "tmp" / "rwlock"
    assert not locks.exists() or not any(json.loads(locks.read_text()).values())
    started = f"{supervised_process.MARK}={folder}".encode()
    assert not [path for path in Path("/proc").glob("[0-9]*/environ") if started in read_bytes(path)]


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.slow
def test_a_trial_whose_workers_died_too_often_leaves_no_worktree(tmp_path: Path) -> None:
    folder = project.make(tmp_path / "shop")
    words = ("run", *SETTINGS, "sweep.n_trials=2", "sweep.pruner=null", "sweep.max_attempts=1", "sweep.start=none")
    worker = start(folder, *words, seconds="60")
    fixtures.wait_for(lambda: list(folder.glob(".tunectl/sweeps/default/trial-0/.tunectl/stage.lock")), 120)
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    assert start(folder, *words, seconds="0").wait(timeout=120) == 0
    first, second = shown(folder)
    assert (first["state"], first["reason"], second["state"]) == ("failed", "its worker died 1 times", "complete")
    assert_nothing_is_left(folder)

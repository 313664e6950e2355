"""Two workers that are killed at random lose no trial and double none, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
import sweep_fixtures as fixtures

from tunectl.backends.sweeps import optuna_study

pytest.importorskip("optuna")
KILLS, TRIALS = 10, 12


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return "sqlite:///sweeps.sqlite"
    return request.getfixturevalue("postgres").database("sweep_kills")


def test_each_set_of_values_ends_in_exactly_one_finished_trial(url: str, tmp_path: Path) -> None:
    study, log = fixtures.create(tmp_path, url, n_trials=TRIALS), tmp_path / "log.jsonl"
    dice = random.Random(3)
    workers = [fixtures.start_worker(url, tmp_path, log) for _ in range(2)]
    kills = 0
    while kills < KILLS and not study.is_finished():
        time.sleep(dice.uniform(0.3, 2.0))
        victim = dice.choice(range(2))
        if workers[victim].poll() is None:
            workers[victim].send_signal(signal.SIGKILL)
            kills += 1
        workers[victim].wait()
        workers[victim] = fixtures.start_worker(url, tmp_path, log)
    for worker in workers:
        assert worker.wait(timeout=120) == 0, (tmp_path / "workers.txt").read_text()
    summary = study.summarize()
    assert kills == KILLS, "the sweep was over before it was disturbed"
    assert [trial.number for trial in summary.trials] == list(range(TRIALS))
    assert {trial.state for trial in summary.trials} == {"complete"}
    assert len({tuple(trial.overrides) for trial in summary.trials}) == TRIALS
    # what a worker had finished when it was killed may be run again, but it counts once
    runs = Counter(json.loads(line)["number"] for line in log.read_text().splitlines())
    assert set(runs) == set(range(TRIALS))
    assert sum(runs.values()) <= TRIALS + kills


def test_a_worker_that_is_told_to_stop_gives_its_trial_back(tmp_path: Path) -> None:
    study = fixtures.create(tmp_path, n_trials=1, heartbeat_seconds=60)
    first = study.claim("somebody")
    assert first is not None
    study.release(first, "somebody")
    again = optuna_study.open_study("sqlite:///sweeps.sqlite", "demo", tmp_path).claim("another")
    assert again is not None
    assert again.overrides == first.overrides

"""Sweeps read from their storage without Optuna say what Optuna says."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from postgres_server import Postgres
from sweep_fixtures import FormulaTrials, create

from tunectl.backends.sweeps import sweep_reader
from tunectl.core.errors import InfrastructureError
from tunectl.pipeline import sweep_worker
from tunectl.sweeps.trial_records import TrialOutcome

URL = "sqlite:///sweeps.sqlite"
GOALS = [{"metric": "sft.validation_loss", "direction": "minimize"}, {"metric": "sft.seconds", "direction": "maximize"}]


def run(study: Any, trials: Any) -> None:
    sweep_worker.run_worker(study, trials, threading.Event(), lambda _line: None)


class UnevenTrials(FormulaTrials):
    """Two objectives; the third trial is pruned, the fourth fails."""

    def run(self, claim: Any, note: Any, stop: Any) -> TrialOutcome | None:
        if claim.number in (2, 3):
            return TrialOutcome(state="pruned" if claim.number == 2 else "failed", reason=f"reason {claim.number}")
        return TrialOutcome(state="complete", values=[float(claim.number % 3), float(claim.number % 2)], seconds=2.0)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that has ended, one of two objectives, one that was stopped at once, and one with other kinds of settings."""
    root = tmp_path_factory.mktemp("sweeps")
    run(create(root), FormulaTrials())
    run(create(root, name="two", objective=GOALS, start=None), UnevenTrials())
    create(root, name="stopped").set_stopped(True)
    space = {
        "sft.target_modules": [["q_proj"], ["q_proj", "v_proj"]],
        "sft.lora_rank": {"low": 2, "high": 9, "log": False},
    }
    kinds = create(root, name="kinds", space=space, start=None, n_trials=3)
    kinds.claim("somebody")
    return root


@pytest.mark.parametrize("name", ["demo", "two", "stopped", "kinds"])
def test_it_says_what_optuna_says(root: Path, name: str) -> None:
    from tunectl.backends.sweeps import optuna_study

    expected = optuna_study.open_study(URL, name, root).summarize()
    assert sweep_reader.read_sweep(URL, root, name, time.time()) == expected
    if name == "two":
        assert len(expected.best) > 1
        assert {trial.state for trial in expected.trials} >= {"complete", "pruned", "failed"}
    if name == "demo":
        assert expected.importance
    if name == "stopped":
        assert expected.stopped


def test_the_list_has_the_newest_first_and_nothing_where_there_is_no_storage(root: Path, tmp_path: Path) -> None:
    assert sweep_reader.list_sweeps(URL, root) == ["kinds", "stopped", "two", "demo"]
    assert sweep_reader.list_sweeps(URL, tmp_path) == []
    assert sweep_reader.read_sweep(URL, tmp_path, "demo", 0) is None
    assert sweep_reader.read_sweep(URL, root, "another", 0) is None
    assert list(tmp_path.iterdir()) == []


def test_a_storage_on_postgresql_is_read_the_same_way(postgres: Postgres, tmp_path: Path) -> None:
    from tunectl.backends.sweeps import optuna_study

    url = postgres.database("sweep_reader")
    run(create(tmp_path, url), FormulaTrials())
    run(create(tmp_path, url, name="two", objective=GOALS, start=None), UnevenTrials())
    for name in ("demo", "two"):
        expected = optuna_study.open_study(url, name, tmp_path).summarize()
        assert sweep_reader.read_sweep(url, tmp_path, name, time.time()) == expected
        assert expected.best
    assert sweep_reader.list_sweeps(url, tmp_path) == ["two", "demo"]
    with postgres.stopped(), pytest.raises(InfrastructureError, match="cannot be read"):
        sweep_reader.list_sweeps(url, tmp_path)


def test_a_damaged_storage_is_named(tmp_path: Path) -> None:
    (tmp_path / "sweeps.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(InfrastructureError, match=r"sweeps\.sqlite cannot be read: file is not a database"):
        sweep_reader.list_sweeps(URL, tmp_path)


def test_optuna_is_not_imported(root: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tunectl.backends.sweeps import sweep_reader as reader; "
        f"assert reader.read_sweep({URL!r}, Path({str(root)!r}), 'demo', 0).best; "
        "print([name for name in ('optuna', 'sqlalchemy', 'numpy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

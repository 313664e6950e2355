"""A sweep without stages: its definition, and trials that are a child process of milliseconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tunectl.backends.sweeps import optuna_study, trial_pruning
from tunectl.sweeps.trial_records import SweepDefinition, TrialClaim, TrialOutcome

SECTION: dict[str, Any] = {
    "name": "demo",
    "space": {"sft.learning_rate": {"low": 0.01, "high": 10.0, "log": True}, "sft.lora_rank": [4, 8, 16]},
    "only_if": {},
    "objective": [{"metric": "sft.validation_loss", "direction": "minimize"}],
    "stage": "sft",
    "n_trials": 8,
    "max_hours": None,
    "workers": 1,
    "sampler": "tpe",
    "pruner": None,
    "start": "current",
    "confirm": False,
    "storage": "sqlite:///sweeps.sqlite",
    "storage_env": "TUNECTL_SWEEP_STORAGE",
    "heartbeat_seconds": 1,
    "max_attempts": 100,
}
START = {"sft.learning_rate": 5.0, "sft.lora_rank": 8}


def definition(**changes: Any) -> SweepDefinition:
    return SweepDefinition(section={**SECTION, **changes}, seed=17, overrides=[], commit="c" * 40, project="shop")


def create(
    root: Path, url: str = "sqlite:///sweeps.sqlite", start: dict[str, Any] | None = START, **changes: Any
) -> optuna_study.SweepStudy:
    return optuna_study.create_study(url, definition(**changes), root, start)


def loss_of(claim: TrialClaim) -> float:
    """Least where the learning rate is 1; the settings as they are have 5."""
    values = dict(word.split("=") for word in claim.overrides) or {"sft.learning_rate": "5.0"}
    rate = float(values["sft.learning_rate"])
    return abs(rate - 1.0) + 0.1


class FormulaTrials:
    """Trials that are a formula, after ``seconds``; each that ends well leaves a line in ``log``."""

    def __init__(self, log: Path | None = None, seconds: float = 0.0) -> None:
        self.log, self.seconds = log, seconds

    def run(self, claim: TrialClaim, note: dict[str, Any], stop: threading.Event) -> TrialOutcome | None:
        if stop.wait(self.seconds):
            return None
        if self.log is not None:
            with self.log.open("a") as stream:
                stream.write(json.dumps({"number": claim.number, "overrides": claim.overrides}) + "\n")
        return TrialOutcome(state="complete", values=[loss_of(claim)], seconds=self.seconds, stages=7, reused=5)


STAGE = """
import sys
from tunectl.backends.sweeps import trial_pruning
from tunectl.core.errors import TrialPrunedError
base = float(sys.argv[1])
try:
    for step in range(1, 9):
        trial_pruning.report_validation("sft", step, base / step)
except TrialPrunedError as error:
    print(error.message)
    sys.exit(error.exit_code)
"""


class ChildTrials:
    """Trials whose stage is another process, which reports a curve and may be stopped in the middle of it."""

    def run(self, claim: TrialClaim, note: dict[str, Any], stop: threading.Event) -> TrialOutcome | None:
        done = subprocess.run(
            [sys.executable, "-c", STAGE, str(loss_of(claim))],
            env={**os.environ, trial_pruning.VARIABLE: json.dumps(note)},
            capture_output=True,
            text=True,
        )
        if done.returncode == 75:
            return TrialOutcome(state="pruned", reason=done.stdout.strip())
        assert done.returncode == 0, done.stderr
        return TrialOutcome(state="complete", values=[loss_of(claim) / 8])


def main(url: str, root: str, log: str) -> None:
    """A worker as a process of its own, for whoever kills it."""
    from tunectl.pipeline import sweep_worker

    study = optuna_study.open_study(url, "demo", Path(root))
    trials = FormulaTrials(Path(log), 2.0)  # so long that a sweep outlasts its kills on a fast machine, too
    sweep_worker.run_worker(study, trials, threading.Event(), lambda line: print(line, flush=True))


def start_worker(url: str, root: Path, log: Path) -> subprocess.Popen[bytes]:
    with (root / "workers.txt").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, __file__, url, str(root), str(log)], stdout=output, stderr=subprocess.STDOUT
        )


def wait_for(condition: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


if __name__ == "__main__":
    main(*sys.argv[1:])

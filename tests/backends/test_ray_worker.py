"""A rank on Ray without Ray: what the launcher hands to it, and what it does with that. With Ray: test_ray_launch.py."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import msgspec
import pytest
from ray_ranks import launch
from tiny_fits import plan, sft_job

from tunectl.backends.launchers import ray_worker
from tunectl.backends.launchers.ray_launcher import RayLauncher
from tunectl.backends.sweeps import trial_pruning
from tunectl.core import progress, progress_journal
from tunectl.core.errors import TrialPrunedError, UsageError
from tunectl.training.fit_request import Failure

pytest.importorskip("torch")


class LocalControl:
    """``FitControl`` in this process: methods are called as those of an actor are."""

    def __init__(self) -> None:
        self.control = ray_worker.FitControl()

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self.control, name))


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Ray's functions, with one worker that is this process; ``context`` is what Ray Train says of it."""
    context = SimpleNamespace(rank=0, size=1)
    described = SimpleNamespace(
        get_world_rank=lambda: context.rank,
        get_world_size=lambda: context.size,
        get_local_world_size=lambda: context.size,
    )
    configs = dict.fromkeys(("ScalingConfig", "RunConfig", "FailureConfig", "CheckpointConfig"), SimpleNamespace)
    train = {
        **configs,
        "LoggingConfig": SimpleNamespace,
        "Checkpoint": SimpleNamespace(from_directory=Path),
        "get_context": lambda: described,
        "get_checkpoint": lambda: None,
        "report": lambda *_, **__: None,
    }
    trainer = {
        "TorchConfig": SimpleNamespace,
        "TorchTrainer": lambda function, **values: SimpleNamespace(function=function, **values),
    }
    same = {"get": lambda value: value, "put": lambda value: value}
    for name, values in {"ray": same, "ray.train": train, "ray.train.torch": trainer}.items():
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    return SimpleNamespace(context=context, control=LocalControl())


def run_rank(ray: Any, job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Carry out a job as a worker does that has nothing of the environment of the stage."""
    trainer = RayLauncher(launch())._build(sys.modules["ray"], job, ray.control)
    with monkeypatch.context() as patch, progress.use_renderer(progress.LogProgress()):
        for name in (trial_pruning.VARIABLE, progress_journal.VARIABLE):
            patch.delenv(name, raising=False)
        trainer.function(trainer.train_loop_config)


def test_the_first_worker_goes_on_with_the_journal_of_the_stage(ray, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(progress_journal, "MIN_SECONDS", 0.0)
    file = tmp_path / "sft.jsonl"
    with progress_journal.record_progress(file, "sft", "digest"):
        run_rank(ray, sft_job(tiny_model, tmp_path), monkeypatch)
    steps = [line for line in progress_journal.read_lines(file) if isinstance(line, progress_journal.JournalStep)]
    assert steps
    assert max(step.done for step in steps) > 12
    assert any("loss" in step.figures for step in steps)


def test_a_worker_can_prune_the_trial_that_its_stage_belongs_to(ray, tiny_model, tmp_path, monkeypatch):
    notes = []

    def report(stage: str, step: int, loss: float) -> None:
        notes.append(os.environ.get(trial_pruning.VARIABLE))
        raise TrialPrunedError(f"{stage} stopped at step {step}")

    monkeypatch.setattr(trial_pruning, "report_validation", report)
    note = json.dumps({"study": "learning", "trial": 7})
    monkeypatch.setenv(trial_pruning.VARIABLE, note)
    with pytest.raises(TrialPrunedError):
        run_rank(ray, sft_job(tiny_model, tmp_path), monkeypatch)
    assert notes == [note]
    told = ray.control.control.read_failure()
    assert told is not None
    assert msgspec.json.decode(told, type=Failure).error == "TrialPrunedError"


def test_a_refusal_of_too_many_workers_names_their_setting(ray, tiny_model, tmp_path, monkeypatch):
    ray.context.rank, ray.context.size = 1, 2
    with pytest.raises(UsageError) as error:
        run_rank(ray, sft_job(tiny_model, tmp_path, plan(batch_size=3)), monkeypatch)
    assert error.value.hint == "start at most 1: launch.num_workers=1, or raise sft.batch_size (now 3 answers)"

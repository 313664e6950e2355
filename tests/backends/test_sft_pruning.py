"""The trainer of sft in a trial of a sweep that falls behind: it stops, as Optuna decides, with the exit code of that."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sweep_fixtures
from tiny_fits import sft_job

from tunectl.backends.sweeps import trial_pruning
from tunectl.backends.trainers.sft_trainer import SftTrainer
from tunectl.core.errors import TrialPrunedError
from tunectl.sweeps.trial_records import TrialOutcome

pytest.importorskip("torch")
BETTER = 0.001
"""The validation loss of the other trial: no fit of random weights gets there."""


def test_a_fit_that_falls_behind_is_pruned_at_its_first_validation(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruner = {"method": "median", "stage": "sft", "n_startup_trials": 1, "n_warmup_steps": 0}
    study = sweep_fixtures.create(tmp_path, n_trials=2, pruner=pruner)
    first = study.claim("one")
    assert first is not None
    monkeypatch.setenv(trial_pruning.VARIABLE, json.dumps(study.stage_note(first)))
    for step in (6, 12, 18, 24):
        trial_pruning.report_validation("sft", step, BETTER)
    study.finish(first, "one", TrialOutcome(state="complete", values=[BETTER]))
    second = study.claim("one")
    assert second is not None
    monkeypatch.setenv(trial_pruning.VARIABLE, json.dumps(study.stage_note(second)))
    job = sft_job(tiny_model, tmp_path)
    with pytest.raises(TrialPrunedError, match=r"sft stopped at step 6: its validation loss of \d") as error:
        SftTrainer().fit(
            job.plan, model=job.model, train=job.train, validation=job.validation, out=job.out, work=job.work
        )
    assert error.value.exit_code == 75
    assert not list(job.out.glob("*.safetensors"))

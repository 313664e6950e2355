"""Report validation losses of a training stage to its sweep trial, and stop where the trial is pruned."""

from __future__ import annotations

import json
import math
import os
import warnings
from functools import cache
from pathlib import Path
from typing import Any

from tunectl.backends.sweeps import optuna_storage
from tunectl.config.schema.sweep import AshaPruner, HyperbandPruner, MedianPruner
from tunectl.core.errors import TrialPrunedError
from tunectl.core.optional import import_optional

VARIABLE = "TUNECTL_SWEEP_TRIAL"
"""Environment variable of a trial's stages: ``SweepStudy.stage_note`` as JSON."""


def report_validation(stage: str, step: int, loss: float) -> None:
    """Report a validation loss to the sweep; does nothing outside a trial, and in all processes of a training but the first.

    Raises  TrialPrunedError where the trial is pruned.
    """
    note = os.environ.get(VARIABLE)
    if not note or os.environ.get("RANK", "0") != "0":
        return
    trial, settings = _open_trial(note)
    if settings["pruner"] is None or settings["pruner"]["stage"] != stage or not math.isfinite(loss):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if (
            step not in trial.storage.get_trial(settings["trial"]).intermediate_values
        ):  # a resumed training validates the same step again
            trial.report(-loss if settings["maximize"] else loss, step)
        if trial.should_prune():
            raise TrialPrunedError(
                f"{stage} stopped at step {step}: its validation loss of {loss:.4f} is behind that of other trials",
                hint="this is no failure; tunectl sweep show lists the trials",
            )


def describe_trial(note: str) -> str:
    """Return ``SWEEP/TRIAL_ID`` from a ``stage_note`` in JSON, for experiment trackers."""
    settings = json.loads(note)
    return f"{settings['study']}/{settings['trial']}"


@cache
def _open_trial(note: str) -> tuple[Any, dict[str, Any]]:
    optuna = import_optional("optuna", extra="sweep")
    settings: dict[str, Any] = json.loads(note)
    storage = optuna_storage.open_storage(settings["storage"], Path(), 60, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.load_study(
            study_name=settings["study"],
            storage=storage,
            sampler=optuna.samplers.RandomSampler(),
            pruner=_build_pruner(optuna.pruners, settings["pruner"]),
        )
        return optuna.trial.Trial(study, settings["trial"]), settings


def describe_pruner(pruner: AshaPruner | HyperbandPruner | MedianPruner | None) -> dict[str, Any] | None:
    """Return a pruner as JSON values for a stage's process: the stage to which it applies, Optuna's class, and its arguments; None for no pruner."""
    if pruner is None:
        return None
    if isinstance(pruner, AshaPruner):
        kind = "SuccessiveHalvingPruner"
        arguments = {"min_resource": pruner.min_resource, "reduction_factor": pruner.reduction_factor}
    elif isinstance(pruner, HyperbandPruner):
        kind = "HyperbandPruner"
        arguments = {
            "min_resource": pruner.min_resource,
            "max_resource": pruner.max_resource,
            "reduction_factor": pruner.reduction_factor,
        }
    else:
        kind = "MedianPruner"
        arguments = {"n_startup_trials": pruner.n_startup_trials, "n_warmup_steps": pruner.n_warmup_steps}
    return {"stage": pruner.stage, "class": kind, "arguments": arguments}


def _build_pruner(pruners: Any, pruner: dict[str, Any] | None) -> Any:
    return getattr(pruners, pruner["class"])(**pruner["arguments"]) if pruner is not None else pruners.NopPruner()

"""Trials that wait in Optuna's queue: first the current settings, then all combinations of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunectl.config.schema.sweep import Sweep
from tunectl.sweeps import search_space

START = "start"
"""Attribute of a trial with the current settings."""


def enqueue_first(study: Any, section: Sweep, start: dict[str, Any] | None) -> None:
    """Enqueue the current settings and all combinations of a grid as trials; skip what an earlier call enqueued."""
    waiting = [(start, {START: True})] if start is not None else []
    if section.sampler == "grid":
        waiting += [(values, {}) for values in search_space.expand_grid(section) if values != start]
    for values, attributes in waiting[len(study.get_trials(deepcopy=False)) :]:
        study.enqueue_trial({key: search_space.encode_choice(value) for key, value in values.items()}, attributes)


def repeat_start(study: Any) -> None:
    """Enqueue the settings of the first trial again where each trial with them has failed."""
    trials = _list_start_trials(study.get_trials(deepcopy=False))
    if trials and all(trial.state.name == "FAIL" for trial in trials):
        study.enqueue_trial(trials[-1].system_attrs.get("fixed_params", {}), {START: True})


def count_repeated(trials: Sequence[Any]) -> int:
    """Return the number of failed trials that ``repeat_start`` has replaced; ``sweep.n_trials`` does not count them."""
    return max(0, len(_list_start_trials(trials)) - 1)


def _list_start_trials(trials: Sequence[Any]) -> list[Any]:
    return [trial for trial in trials if trial.user_attrs.get(START)]

"""Ranks of tests on Ray: one of them dies once, as a node does that loses its power, or computes a loss that is no number."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from tunectl.backends.launchers import ray_worker
from tunectl.backends.modeling import training_run
from tunectl.core.optional import import_optional


def run_killed(config: dict[str, Any], marker: str) -> None:
    """Die in the fifth step of the second rank, if ``marker`` is not there yet."""
    rank = import_optional("ray.train", extra="ray").get_context().get_world_rank()
    own_loss, steps = training_run.step_loss, [0]

    def step_loss(run, step, backward):
        steps[0] += 1
        if rank == 1 and steps[0] == 5 and not Path(marker).exists():
            Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return own_loss(run, step, backward)

    training_run.step_loss = step_loss
    ray_worker.run_rank(config)


def run_spoiled(config: dict[str, Any]) -> None:
    """The loss of the second rank is no number in its third step."""
    rank = import_optional("ray.train", extra="ray").get_context().get_world_rank()
    own_cross, calls = training_run.batching.cross_entropy_loss, [0]

    def cross_entropy_loss(*args, **kwargs):
        calls[0] += 1
        return own_cross(*args, **kwargs) * (float("nan") if rank == 1 and calls[0] > 8 else 1.0)

    training_run.batching.cross_entropy_loss = cross_entropy_loss
    ray_worker.run_rank(config)

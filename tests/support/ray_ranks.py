"""Ranks of tests on Ray: one dies once, as a node does that loses its power, waits for others, or computes a loss that is no number."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tunectl.backends.launchers import ray_worker
from tunectl.backends.launchers.ray_launcher import RayLauncher, prepare_environment
from tunectl.backends.modeling import training_run
from tunectl.backends.trainers import rollout
from tunectl.config.schema.launch import RayLaunch
from tunectl.core.optional import import_optional


def launch(**changes: Any) -> RayLaunch:
    """Two workers on a cluster that is started here."""
    values = {"address": "local", "num_workers": 2, "max_failures": 2, "storage_path": None, "shard": "none"}
    return RayLaunch(method="ray", collective_timeout_seconds=60, **{**values, **changes})


@contextmanager
def open_cluster() -> Iterator[None]:
    """Run a cluster for several fits; its workers get this module by value, since they do not have the folder of the tests."""
    prepare_environment(local=True)
    ray = pytest.importorskip("ray")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    assert RayLauncher(launch())._connect(ray)
    yield
    ray.shutdown()


def run_killed(config: dict[str, Any], marker: str) -> None:
    """Die in the fifth step of the second rank, if ``marker`` is not there yet."""

    def die(rank: int, size: int) -> None:
        if rank == 1 and not Path(marker).exists():
            Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)

    _run_with(config, die)


def run_waiting(config: dict[str, Any], marker: str) -> None:
    """As the only rank, write ``marker`` in the fifth step and wait there for the end of this process, five minutes at most."""

    def wait(rank: int, size: int) -> None:
        if size == 1:
            Path(marker).touch()
            time.sleep(300)

    _run_with(config, wait)


def _run_with(config: dict[str, Any], act: Callable[[int, int], None]) -> None:
    """Run a rank that calls ``act`` with its number and the number of ranks in its fifth step."""
    context = import_optional("ray.train", extra="ray").get_context()
    own_loss, own_start, steps = training_run.step_loss, rollout.start, [0]

    def count() -> None:
        steps[0] += 1
        if steps[0] == 5:
            act(context.get_world_rank(), context.get_world_size())

    def step_loss(run, step, backward):
        count()
        return own_loss(run, step, backward)

    def start(run, numbers, step):
        count()
        return own_start(run, numbers, step)

    training_run.step_loss, rollout.start = step_loss, start
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

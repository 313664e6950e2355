"""A rank of a test: ``python rank_worker.py SCRIPT FOLDER``. It dies or errs where the script says, and is else the real worker.

With ``fits`` in the script it carries out the requests of several folders one after the other: torch is imported once.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import tiny_policies

from tunectl.artifacts import atomic_io
from tunectl.backends.launchers import worker
from tunectl.backends.modeling import training_checkpoint, training_run
from tunectl.backends.modeling.process_group import ProcessGroup
from tunectl.backends.trainers import rollout
from tunectl.backends.trainers.rollout_generation import RolloutGenerator
from tunectl.core import logging_setup
from tunectl.training import fit_request
from tunectl.training.fit_request import FitRequest

POINTS = ("before_forward", "after_backward", "in_save", "after_save")
RANK, ATTEMPT = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
STEPS = [0]
"""Forward passes of training steps in this attempt."""


def die() -> None:
    """End as a node ends that loses its power."""
    os.kill(os.getpid(), signal.SIGKILL)


def plant(point: str) -> None:
    """Die at ``point``: in the second step of this attempt, or at its first checkpoint."""
    own_loss, own_sum, own_barrier = training_run.step_loss, ProcessGroup.sum_gradients, ProcessGroup.barrier
    own_finish = training_checkpoint.finish_checkpoint

    def step_loss(run, step, backward):
        STEPS[0] += 1
        if point == "before_forward" and STEPS[0] == 2:
            die()
        return own_loss(run, step, backward)

    def sum_gradients(self, model):
        if point == "after_backward" and STEPS[0] == 2:
            die()
        own_sum(self, model)

    def barrier(self):
        if point == "in_save" and RANK:  # the first rank is writing
            die()
        own_barrier(self)
        if point == "after_save":
            die()

    def finish_checkpoint(folder):
        if point == "in_save":
            die()
        own_finish(folder)

    training_run.step_loss, training_checkpoint.finish_checkpoint = step_loss, finish_checkpoint
    ProcessGroup.sum_gradients, ProcessGroup.barrier = sum_gradients, barrier


def plant_in_rollout(point: str) -> None:
    """Count the steps of a policy, and die before the second one where that is the point."""
    own_start = rollout.start

    def start(run, numbers, step):
        STEPS[0] += 1
        if point == "before_forward" and STEPS[0] == 2:
            die()
        return own_start(run, numbers, step)

    rollout.start = start


def err(kind: str) -> None:
    """Compute a loss that is no number in the third step, or raise what nobody expects."""
    own_loss, own_cross = training_run.step_loss, training_run.batching.cross_entropy_loss

    def step_loss(run, step, backward):
        STEPS[0] += 1
        if kind == "crash" and STEPS[0] == 3:
            raise ZeroDivisionError("a bug of this rank")
        return own_loss(run, step, backward)

    def cross_entropy_loss(*args, **kwargs):
        found = own_cross(*args, **kwargs)
        return found * float("nan") if kind == "nan" and STEPS[0] == 3 else found

    training_run.step_loss, training_run.batching.cross_entropy_loss = step_loss, cross_entropy_loss


def run_many(folders: list[str]) -> int:
    """Carry out the requests of ``folders`` in this process."""
    logging_setup.configure_logging(level="error" if RANK else "info")
    first = atomic_io.read_json(Path(folders[0]) / fit_request.REQUEST, FitRequest)
    group = worker.join_ranks(first, Path(folders[0]))
    for folder in map(Path, folders):
        request = atomic_io.read_json(folder / fit_request.REQUEST, FitRequest)
        with patch.object(RolloutGenerator, "sample_completions", RolloutGenerator.sample_completions):
            if (folder / "answers.json").is_file():
                tiny_policies.take_answers_from(folder / "answers.json")
            result = worker.run_fit(request, folder, replace(group, sharded=request.sharded))
        if not RANK:
            atomic_io.write_json(folder / "single_result.json", result)
        group.barrier()
    return 0


def main(script: dict, folder: Path) -> int:
    """Follow the script."""
    if "fits" in script:
        return run_many(script["fits"])
    for attempt, rank, point in script.get("kills", ()):
        if (attempt, rank) == (ATTEMPT, RANK) and point == "at_exit":
            atexit.register(os.abort)
        elif (attempt, rank) == (ATTEMPT, RANK):
            plant(point)
            plant_in_rollout(point)
    if script.get("rank") == RANK:
        err(script["error"])
    return worker.main(folder)


if __name__ == "__main__":
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])))

"""The trainings of a client, and the first adapter of a federation: processes in tunectl's environment.

    python -m tunectl.backends.federated.local_fit init FOLDER         FOLDER/adapter and FOLDER/start.npz
    python -m tunectl.backends.federated.local_fit fit FOLDER ROUND    ROUND/update.npz and ROUND/counts.json

``FOLDER`` holds a request as distributed training has it (``training.fit_request``): plan, model and rows.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tunectl.artifacts import atomic_io
from tunectl.backends.modeling import peft_adapter
from tunectl.backends.system import process_guard
from tunectl.backends.trainers.sft_trainer import SftTrainer, load_with_adapter
from tunectl.chat import model_spec
from tunectl.core import logging_setup
from tunectl.core.errors import TunectlError, UsageError
from tunectl.federated import exchange
from tunectl.federated.exchange import ClientCounts, RoundRequest
from tunectl.training import batch_schedule, fit_request
from tunectl.training.fit_request import FitRequest
from tunectl.training.prefix_sharing import PackedRow
from tunectl.training.train_args import TrainingArgs

ADAPTER, INITIAL = "adapter", "initial"
FALLING = {"constant": 0.0, "linear": 1.0, "cosine": 1.0}
"""Share by which the learning rate falls from the first round to the last; within a round it is constant."""


def init(folder: Path) -> None:
    """Write the first adapter of a federation: fresh, from the seed."""
    request, plan = _read(folder)
    model, _, _ = load_with_adapter(plan, Path(request.model))
    weights = {name: value.clone() for name, value in peft_adapter.trainable_state(model).items()}
    spec = model_spec.load(Path(request.model))
    peft_adapter.save_adapter(model, weights, folder / ADAPTER, spec)
    model_spec.save(spec, folder / ADAPTER)
    exchange.write_weights(folder / exchange.START, peft_adapter.read_adapter(folder / ADAPTER))


def fit(folder: Path, place: Path) -> None:
    """Train the round that ``place`` describes, from its adapter; the last weights count, as in FedAvg."""
    request, plan = _read(folder)
    round_request: RoundRequest = atomic_io.read_json(place / "request.json", RoundRequest)
    rows, validation = fit_request.read_rows(folder, PackedRow)
    peft_adapter.write_adapter(place / INITIAL, exchange.read_weights(place / exchange.START), folder / ADAPTER)
    share = FALLING[plan.lr_scheduler] * (round_request.number - 1) / round_request.rounds
    local = replace(
        plan,
        init_adapter=place / INITIAL,
        epochs=epochs_for(rows, plan, steps=round_request.local_steps),
        lr_scheduler="constant",
        learning_rate=plan.learning_rate * (1 - share),
        seed=plan.seed + round_request.number,
    )
    result = SftTrainer().fit(
        local,
        model=Path(request.model),
        train=rows,
        validation=validation,
        out=place / ADAPTER,
        work=place / "work",
    )
    exchange.write_weights(place / exchange.UPDATE, peft_adapter.read_adapter(place / ADAPTER))
    answers = sum(len(row.branches) for row in rows)
    atomic_io.write_json(place / exchange.COUNTS, ClientCounts(answers, result.steps))
    shutil.rmtree(place / "work", ignore_errors=True)


def epochs_for(rows: Sequence[PackedRow], plan: TrainingArgs, *, steps: int) -> float:
    """Return the passes over ``rows`` that take ``steps`` optimizer steps."""
    one = batch_schedule.build_schedule(
        rows, epochs=1, answers=plan.batch_size, tokens=plan.profile.train_batch_tokens, seed=plan.seed
    )
    return steps / len(one)


def _read(folder: Path) -> tuple[FitRequest, TrainingArgs]:
    request: FitRequest = atomic_io.read_json(folder / fit_request.REQUEST, FitRequest)
    return request, fit_request.decode_plan(request.plan, TrainingArgs)


def main(words: Sequence[str]) -> int:
    """Do what the command line asks; returns the exit code."""
    process_guard.die_with_parent()
    logging_setup.configure_logging(level="error")
    try:
        if words[0] == "init":
            init(Path(words[1]))
        elif words[0] == "fit":
            fit(Path(words[1]), Path(words[2]))
        else:
            raise UsageError(f"{words[0]} is not a command; allowed are init and fit")
    except TunectlError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

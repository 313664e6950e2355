"""The trainings of a client, and the first adapter of a federation: processes in tunectl's environment.

    python -m tunectl.backends.federated.local_fit init FOLDER         FOLDER/adapter and FOLDER/start.npz
    python -m tunectl.backends.federated.local_fit fit FOLDER ROUND    ROUND/update.npz and ROUND/counts.json

``FOLDER`` holds a request as distributed training has it (``training.fit_request``): plan, model and rows; a client's the counts of its rows, too.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tunectl.artifacts import atomic_io, row_counts
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
from tunectl.training.train_args import TrainingArgs, derive_seed

ADAPTER, INITIAL = "adapter", "initial"
LR_DECAY = {"constant": 0.0, "linear": 1.0, "cosine": 1.0}
"""Share of the learning rate that is gone after the last round, by schedule; within a round the rate is constant."""


def init(folder: Path) -> None:
    """Write a new adapter, randomly initialized with the seed, to ``folder/adapter``, and its tensors to ``start.npz``."""
    request, plan = _read(folder)
    model, _, _ = load_with_adapter(plan, Path(request.model))
    weights = {name: value.clone() for name, value in peft_adapter.trainable_state(model).items()}
    spec = model_spec.load(Path(request.model))
    peft_adapter.save_adapter(model, weights, folder / ADAPTER, spec)
    model_spec.save(spec, folder / ADAPTER)
    exchange.write_weights(folder / exchange.START, peft_adapter.read_adapter(folder / ADAPTER))


def fit(folder: Path, round_folder: Path) -> None:
    """Train one round from ``round_folder/start.npz`` on the client's rows in ``folder``; write the adapter's tensors and the counts.

    The weights of the last step are the result, as in FedAvg.
    """
    request, plan = _read(folder)
    round_request: RoundRequest = atomic_io.read_json(round_folder / "request.json", RoundRequest)
    rows, validation = fit_request.read_rows(folder, PackedRow)
    peft_adapter.write_adapter(
        round_folder / INITIAL, exchange.read_weights(round_folder / exchange.START), folder / ADAPTER
    )
    share = LR_DECAY[plan.lr_scheduler] * (round_request.number - 1) / round_request.rounds
    round_plan = replace(
        plan,
        init_adapter=round_folder / INITIAL,
        epochs=epochs_for(rows, plan, steps=round_request.local_steps),
        lr_scheduler="constant",
        learning_rate=plan.learning_rate * (1 - share),
        seed=derive_seed(plan.seed, round_request.number),
    )
    result = SftTrainer().fit(
        round_plan,
        model=Path(request.model),
        train=rows,
        validation=validation,
        out=round_folder / ADAPTER,
        work=round_folder / "work",
    )
    exchange.write_weights(round_folder / exchange.UPDATE, peft_adapter.read_adapter(round_folder / ADAPTER))
    answers = sum(len(row.branches) for row in rows)
    read = row_counts.load(folder)
    counts = ClientCounts(answers, result.steps, read.rows_in, sum(read.rejected.values()))
    atomic_io.write_json(round_folder / exchange.COUNTS, counts)
    shutil.rmtree(round_folder / "work", ignore_errors=True)


def epochs_for(rows: Sequence[PackedRow], plan: TrainingArgs, *, steps: int) -> float:
    """Return the number of epochs over ``rows`` (a fraction) that take ``steps`` optimizer steps."""
    one_epoch = batch_schedule.build_schedule(
        rows, epochs=1, answers=plan.batch_size, tokens=plan.profile.train_batch_tokens, seed=plan.seed
    )
    return steps / len(one_epoch)


def _read(folder: Path) -> tuple[FitRequest, TrainingArgs]:
    request: FitRequest = atomic_io.read_json(folder / fit_request.REQUEST, FitRequest)
    return request, fit_request.decode_plan(request.plan, TrainingArgs)


def main(argv: Sequence[str]) -> int:
    """Run ``init FOLDER`` (write the first adapter) or ``fit FOLDER ROUND_FOLDER`` (train a round); return the exit code."""
    process_guard.die_with_parent()
    logging_setup.configure_logging(level="error")
    try:
        if argv[0] == "init":
            init(Path(argv[1]))
        elif argv[0] == "fit":
            fit(Path(argv[1]), Path(argv[2]))
        else:
            raise UsageError(f"{argv[0]} is not a command; allowed are init and fit")
    except TunectlError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What happens around the steps of a training: counting, averaging, validating, keeping the best weights, and the curve."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low
from typing import Any

from msgspec.structs import replace

from tunectl.backends.modeling import batching, training_checkpoint
from tunectl.backends.modeling.peft_adapter import load_trainable, trainable_state
from tunectl.backends.modeling.process_group import SINGLE, ProcessGroup
from tunectl.core import logging_setup
from tunectl.core.errors import UsageError
from tunectl.core.optional import import_optional
from tunectl.training import batch_schedule
from tunectl.training.batch_schedule import OptimizerStep
from tunectl.training.prefix_sharing import PackedRow
from tunectl.training.protocols import LogPoint
from tunectl.training.train_args import TrainingArgs, suggest_for_lost_loss

_log = logging_setup.get_logger(__name__)


@dataclass
class TrainingRun:
    """State of one training in this process, which the trainer's callbacks share; ``plan`` holds its arguments."""

    plan: TrainingArgs
    rows: list[PackedRow]
    steps: list[OptimizerStep]
    validation: list[PackedRow]
    route: batching.ForwardPath
    state: training_checkpoint.TrainerState
    bar: Any = None
    stopped: bool = False
    """Ctrl-C was pressed: finish this step, save, stop."""
    clock: float = 0.0
    last_good: tuple[int, float] | None = None
    fresh_tokens: int = 0
    fresh_seconds: float = 0.0
    group: ProcessGroup = SINGLE
    """The processes that share this training."""

    def learn(self, step: OptimizerStep, backward: Any) -> float:
        """Run forward and backward over one step, calling ``backward`` with each loss; return the mean loss (nats per token)."""
        return step_loss(self, step, backward)

    def validate(self, model: Any) -> float:
        """Return the validation loss (nats per token) of ``model``, by which the best weights are chosen."""
        return validation_loss(self, model)

    def read(self, step: OptimizerStep) -> tuple[int, int]:
        """Return the number of tokens of a step as packed, and as it would be if no answers shared a prompt; padding not counted."""
        rows = [self.rows[number] for group in step.batches for number in group]
        return sum(row.length + len(row.branches) for row in rows), sum(row.unshared_tokens for row in rows)

    @property
    def batchables(self) -> Sequence[batch_schedule.Batchable]:
        """The training items, by index: ``OptimizerStep.batches`` holds positions in this list. Here an item is one training row."""
        return self.rows

    def rank_batches(self, step: OptimizerStep) -> tuple[tuple[int, ...], ...]:
        """Return the micro-batches of ``step`` for this rank, each as indices of rows."""
        if self.group.world_size == 1:
            return step.batches
        order = [number for group in step.batches for number in group]
        return self._distribute(self.batchables, order)

    def rank_validation(self, rows: Sequence[batch_schedule.Batchable]) -> tuple[tuple[int, ...], ...]:
        """Return the micro-batches of the validation rows for this rank, each as indices of rows."""
        if self.group.world_size == 1:
            return batch_schedule.token_batches(rows, range(len(rows)), self.plan.profile.train_batch_tokens)
        return self._distribute(rows, range(len(rows)))

    def _distribute(
        self, rows: Sequence[batch_schedule.Batchable], order: Sequence[int]
    ) -> tuple[tuple[int, ...], ...]:
        own, group = self.plan.profile.train_batch_tokens, self.group
        return batch_schedule.rank_batches(rows, order, own, rank=group.rank, world_size=group.world_size)

    def count_padding(self, batches: int) -> int:
        """Return the number of empty forward passes that this rank adds to its ``batches``: sharded layers need equally many on all ranks."""
        return int(self.group.max(float(batches))[0]) - batches if self.group.sharded else 0

    @property
    def validate_at(self) -> set[int]:
        """Steps after which the validation loss is measured, the last step included."""
        count = max(1, round(self.plan.evals_per_epoch * self.plan.epochs))
        return {max(1, round(len(self.steps) * (turn + 1) / count)) for turn in range(count)}


def load_state(run: TrainingRun, model: Any, folder: Path) -> None:
    """Set the state of ``run`` to that of the checkpoint ``folder``.

    It is read into the memory of the machine; the moving average is updated with the weights, so it is moved to their devices.
    """
    run.state = training_checkpoint.TrainerState.load(folder)
    devices = {name: weights.device for name, weights in trainable_state(model).items()}
    run.state.average = {name: value.to(devices[name]) for name, value in run.state.average.items()}


def is_out_of_patience(run: TrainingRun) -> bool:
    """Return whether so many validations in a row were no better that early stopping ends the training."""
    return run.plan.patience is not None and run.state.misses >= run.plan.patience


def step_loss(run: TrainingRun, step: OptimizerStep, backward: Any) -> float:
    """Run forward and backward over all micro-batches of one step; return the mean loss of its trained tokens (nats)."""
    parts = [run.route.batch([run.rows[number] for number in group]) for group in run.rank_batches(step)]
    (weight,) = run.group.sum(sum(float(part.weights.sum()) for part in parts))
    total, padding = 0.0, run.count_padding(len(parts))
    for part in parts:
        loss = batching.cross_entropy_loss(run.route, part, smoothing=run.plan.label_smoothing) / weight
        backward(loss)
        total += float(loss.detach())
    for _ in range(padding):
        backward(batching.cross_entropy_loss(run.route, run.route.batch(run.rows[:1])) * 0.0)
    return run.group.sum(total)[0]


def validation_loss(run: TrainingRun, model: Any) -> float:
    """Return the mean loss (nats) per trained token of the validation rows, with the moving average of the weights if there is one."""
    model.eval()
    with swap_in_ema(model, run.state.average), disable_gradients(run):
        total, weight = 0.0, 0.0
        batches = run.rank_validation(run.validation)
        padding = run.count_padding(len(batches))
        for group in batches:
            part = run.route.batch([run.validation[number] for number in group])
            total += float(batching.cross_entropy_loss(run.route, part))
            weight += float(part.weights.sum())
        for _ in range(padding):
            batching.cross_entropy_loss(run.route, run.route.batch(run.validation[:1]))
    model.train()
    total, weight = run.group.sum(total, weight)
    return total / weight


def check_ranks(run: TrainingRun) -> None:
    """Check that the ranks can share a step, and log ranks and rows per step.

    Raises  UsageError where a typical step has fewer rows than there are ranks.
    """
    group, label = run.group, run.plan.label
    sizes = [sum(len(batch) for batch in step.batches) for step in run.steps]
    usual = median_low(sizes)
    if group.world_size > max(usual, 1):  # a private fit may have steps without rows
        raise UsageError(
            f"{label}: launch starts {group.world_size} ranks, but a typical step has {usual} row{'' if usual == 1 else 's'}: "
            "some ranks would have nothing to do",
            hint=f"start at most {usual}: {group.size_setting}={usual}, or raise {label}.batch_size (now {run.plan.batch_size} answers)",
        )
    if group.first:
        tokens = sum(run.read(step)[0] for step in run.steps) / len(run.steps) / group.world_size
        ranks = "1 process" if group.world_size == 1 else f"{group.world_size} ranks"
        shard = ", frozen layers sharded" if group.sharded else ""
        _log.info("%s: %s on %s%s, about %d tokens a step each", label, ranks, run.route.device, shard, round(tokens))


def disable_gradients(run: TrainingRun) -> Any:
    """Return torch's context manager for a validation. FSDP2 cannot gather weights under ``inference_mode``, which is the faster one."""
    torch = import_optional("torch", extra="train")
    return torch.no_grad() if run.group.sharded else torch.inference_mode()


def check_finite(run: TrainingRun, step: int, loss: float) -> None:
    """Store ``loss`` as the last good one if it is finite.

    Raises  UsageError for NaN and infinity, naming the step, the last good loss, and what to change.
    """
    if loss - loss == 0:  # neither infinite nor NaN
        run.last_good = (step, loss)
        return
    good = (
        f"the last good loss was {run.last_good[1]:.4f} at step {run.last_good[0]}"
        if run.last_good
        else "there was no good loss before"
    )
    raise UsageError(
        f"{run.plan.label}: the loss is {loss} at step {step}; {good}",
        hint=suggest_for_lost_loss(run.plan.label, run.plan.learning_rate, run.plan.max_grad_norm),
    )


def update_best(run: TrainingRun, model: Any, loss: float, step: int) -> None:
    """Keep the current weights as the best ones if ``loss`` (validation, nats) is the lowest so far; count misses for early stopping.

    Raises  UsageError where the loss is NaN or infinite and no earlier weights can be kept.
    """
    state = run.state
    if run.plan.keep_last:
        state.best = {}
    if not state.best and not math.isfinite(loss):
        raise UsageError(
            f"{run.plan.label}: the validation loss is {loss} at step {step}, and there are no earlier weights to keep",
            hint=suggest_for_lost_loss(run.plan.label, run.plan.learning_rate, run.plan.max_grad_norm),
        )
    if state.best and not loss < state.best_loss - run.plan.min_delta:
        state.misses += 1
    else:
        state.misses = 0
    if not state.best or loss < state.best_loss:
        state.best_loss, state.best_step = loss, step
        state.best = {name: value.clone() for name, value in (state.average or trainable_state(model)).items()}


@contextmanager
def swap_in_ema(model: Any, average: dict[str, Any]) -> Iterator[None]:
    """Give the model the weights ``average`` while the block runs."""
    own = {name: value.clone() for name, value in trainable_state(model).items()} if average else {}
    load_trainable(model, average)
    try:
        yield
    finally:
        load_trainable(model, own)


def update_ema(run: TrainingRun, model: Any, step: int) -> None:
    """Update the moving average of the weights. Its decay grows with the steps up to ``ema_decay``, so that the initial weights soon do not count."""
    if run.plan.ema_decay is None:
        return
    if not run.state.average:
        run.state.average = {name: value.clone() for name, value in trainable_state(model).items()}
        return
    decay = min(run.plan.ema_decay, (1 + step) / (10 + step))
    for name, value in trainable_state(model).items():
        run.state.average[name].lerp_(value, 1 - decay)


def update_progress(run: TrainingRun, number: int) -> None:
    """Add tokens and seconds of step ``number`` (from 1) to the totals, and advance the progress bar."""
    tokens, unshared_tokens = run.read(run.steps[number - 1])
    now = time.monotonic()
    run.state.tokens += tokens
    run.state.tokens_apart += unshared_tokens
    run.state.seconds += now - run.clock
    run.fresh_tokens += tokens
    run.fresh_seconds += now - run.clock
    run.clock = now
    speed = run.fresh_tokens / max(run.fresh_seconds, 1e-9)
    figures = {"tokens/s": f"{speed:.0f}", "loss": f"{run.last_good[1]:.3f}" if run.last_good else "-"}
    if run.state.best:
        figures["validation"] = f"{run.state.best_loss:.3f}"
    run.bar.advance(1, **figures)


def log(run: TrainingRun, step: int, logs: dict[str, float]) -> None:
    """Add the values ``logs`` that the trainer logs at ``step`` to the curve."""
    epoch = run.steps[max(step, 1) - 1].epoch
    history = run.state.history
    if "eval_loss" in logs and history and history[-1].step == step:
        history[-1] = replace(history[-1], validation_loss=logs["eval_loss"])
        run.clock = time.monotonic()  # the time of a validation is not the steps'
        _log.info(
            "%s: step %d of %d, loss %.4f, validation loss %.4f",
            run.plan.label,
            step,
            len(run.steps),
            history[-1].loss or 0.0,
            logs["eval_loss"],
        )
    elif "loss" in logs:
        speed = run.fresh_tokens / max(run.fresh_seconds, 1e-9)
        history.append(LogPoint(step, epoch, logs["loss"], None, logs.get("learning_rate", 0.0), round(speed, 1)))
        run.fresh_tokens, run.fresh_seconds = 0, 0.0

"""Base class and loop of all trainers on preferences: they replace TRL's steps, validations, checkpoints and progress."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tunectl.backends.modeling import training_checkpoint
from tunectl.backends.modeling.process_group import ProcessGroup
from tunectl.backends.trainers import trainer_loop
from tunectl.backends.trainers.rl_checkpoint import RlTrainerState
from tunectl.config.schema.align import Grpo, Rloo
from tunectl.core import logging_setup, progress
from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.core.optional import import_optional
from tunectl.training.rl.rl_types import RlArgs, StepMetrics, ValidationPoint
from tunectl.training.train_args import suggest_for_lost_loss

_log = logging_setup.get_logger(__name__)

if TYPE_CHECKING:
    Base: Any = object
else:
    Base = object


class TrainRun(Protocol):
    """State of one policy training that the loop reads and changes: ``OfflineRun`` or ``PolicyRun``."""

    plan: RlArgs
    state: RlTrainerState
    bar: Any
    stopped: bool
    """Ctrl-C was pressed: finish this step, save, stop."""
    clock: float
    """When the current step began, on the monotonic clock."""
    group: ProcessGroup
    """The processes that share this training."""

    @property
    def steps(self) -> Sequence[Any]:
        """Input of each training step, in order."""

    def run_validation(self, step: int) -> ValidationPoint:
        """Validate with greedy answers after ``step`` steps; return the result."""

    def format_progress(self, point: StepMetrics) -> dict[str, str]:
        """Return the texts for the progress bar after a step, by label, such as ``{"loss": "0.693"}``."""


class PolicyTrainerMixin(Base):
    """Mixin over TRL's trainers of policies: replaces data loader, validation and checkpoints.

    The attribute ``run`` must be set before training starts.
    """

    args: Any
    control: Any
    state: Any
    run: Any

    def get_train_dataloader(self) -> Any:
        """Return a torch ``DataLoader`` with one item per training step."""
        data = import_optional("torch.utils.data", extra="train")
        return data.DataLoader(
            self.run.steps, batch_size=1, shuffle=False, collate_fn=lambda items: {"numbers": items[0]}
        )

    def evaluate(self, *_args: Any, **_kwargs: Any) -> dict[str, float]:
        """Validate with greedy answers, stop the training if the result demands it, and return the metrics by name."""
        run: TrainRun = self.run
        point = run.run_validation(self.state.global_step)
        run.clock = time.monotonic()  # the time of a validation does not count as a step's
        figures = {"eval_reward": point.reward, "eval_kl": point.kl, "eval_measure": point.metric}
        if point.held_out_loss is not None:
            figures["eval_loss"] = point.held_out_loss
        self.log(dict(figures))
        # this also records the validation in the trainer, which would validate again at the end of an epoch otherwise
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        if run.state.stopped is not None:
            self.control.should_training_stop = True
        return figures

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder, first = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}", self.run.group.first
        if first:
            plain = import_optional("transformers", extra="train").Trainer
            plain._save_checkpoint(self, model, trial)  # noqa: SLF001  TRL's own adds a model card
            self.run.state.save(folder)
            training_checkpoint.finish_checkpoint(folder)
        self.run.group.end_checkpoint(folder if first else None)


def suggest_less_memory(plan: RlArgs) -> str:
    """Return the advice for too little memory: the settings to lower, with their values."""
    settings = plan.settings
    if isinstance(settings, Rloo | Grpo):
        longest = f"align.max_new_tokens (now {settings.max_new_tokens})"
    else:
        longest = f"align.max_length (now {settings.max_length})"
    return (
        f"lower hardware.train_batch_tokens (now {plan.profile.train_batch_tokens}), hardware.generate_batch "
        f"(now {plan.profile.generate_batch}) or {longest}"
    )


def check_rank_count(group: ProcessGroup, device: str, items: int, unit: str, hint: str) -> None:
    """Check that ``group`` can share a step of ``items`` items, and log ranks and device.

    ``unit`` is the noun for the items, ``hint`` the setting that gives a step more of them.
    Raises  UsageError where a step has fewer items than there are ranks, or ``launch.shard`` is set.
    """
    if group.world_size > items:
        raise UsageError(
            f"align: launch starts {group.world_size} ranks, and a step has {items} {unit}{'' if items == 1 else 's'}: "
            "some ranks would have nothing to do",
            hint=f"start at most {items}: {group.size_setting}={items}, {hint}",
        )
    if group.sharded:
        raise UsageError(
            "align: launch.shard = layers, but answers are written with a merged copy of each layer",
            hint="set launch.shard=none for this stage",
        )
    if group.first:
        ranks = "1 process" if group.world_size == 1 else f"{group.world_size} ranks"
        _log.info("align: %s on %s, about %d %ss a step each", ranks, device, round(items / group.world_size), unit)


def require_memory_and_disk(
    plan: RlArgs, model: Any, longest: int, work: Path, *, extra_bytes: int = 0, ranks: int = 1
) -> None:
    """Check that memory and disk suffice for a policy training on rows of at most ``longest`` tokens.

    A second copy of the adapted weights generates answers. ``extra_bytes`` go to the disk besides checkpoints; ``ranks`` share the memory.
    Raises  InfrastructureError with what is needed and what is there.
    """
    weights = next(weights for weights in model.parameters() if not weights.requires_grad)
    size = float(weights.element_size())
    trainer_loop.require_memory_and_disk(
        plan,
        model,
        longest,
        work,
        weight_bytes=size,
        extra_bytes=extra_bytes,
        hint=suggest_less_memory(plan),
        ranks=ranks,
    )


def require_finite_loss(run: TrainRun, step: int, loss: float) -> None:
    """Check that the loss of step ``step`` is finite.

    Raises  UsageError with the step and the last good loss.
    """
    if math.isfinite(loss):
        return
    history, settings = run.state.history, run.plan.settings
    good = (
        f"the last good loss was {history[-1].loss:.4f} at step {history[-1].step}"
        if history
        else "no earlier loss is known"
    )
    raise UsageError(
        f"align: the loss is {loss} at step {step}; {good}",
        hint=suggest_for_lost_loss("align", settings.learning_rate, settings.max_grad_norm),
    )


def run_steps(run: TrainRun, trainer: Any, resumed: Path | None) -> int:
    """Run the remaining steps of ``run``, from the checkpoint folder ``resumed`` (None: from the start); return the number of the last step.

    Raises  InfrastructureError after Ctrl-C.
    """
    last_step, label = 0, run.plan.label
    if resumed:
        last_step = int(resumed.name.rpartition("-")[2])
        _log.info("%s: resuming from step %d of %d", label, last_step, len(run.steps))
    else:
        run.run_validation(0)
    if run.state.stopped is None:
        with trainer_loop.stop_on_ctrl_c(run), progress.bar(label, len(run.steps)) as run.bar:
            run.clock = time.monotonic()
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        last_step = int(trainer.state.global_step)
    if run.stopped:
        raise InfrastructureError(
            f"{label} stopped at step {last_step} of {len(run.steps)}; its state is kept",
            hint="run the same command again to resume",
        )
    if run.state.stopped is not None:
        _log.warning("%s: stopped early: %s", label, run.state.stopped)
    return last_step


def mute_progress(trainer: Any) -> None:
    """Switch off the trainer's own progress output, which ours replaces."""
    transformers = import_optional("transformers", extra="train")
    for callback in (transformers.ProgressCallback, transformers.PrinterCallback):
        trainer.remove_callback(callback)


@cache
def make_callback_class() -> Any:
    """Return a callback class that advances the progress bar and decides when to validate and to save; set its ``trainer``."""

    class RolloutCallback(import_optional("transformers", extra="train").TrainerCallback):  # type: ignore[misc]
        """Runs after every optimizer step."""

        trainer: Any

        def on_train_begin(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
            """Show the progress of an earlier run."""
            if state.global_step:
                self.trainer.run.bar.advance(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
            """Show the step, and decide whether to validate, save or stop."""
            run: TrainRun = self.trainer.run
            number, settings = state.global_step, run.plan.settings
            run.bar.advance(1, **run.format_progress(run.state.history[-1]))
            ended = number >= len(run.steps)
            control.should_log = True
            control.should_evaluate = ended or number % settings.validation.eval_steps == 0
            control.should_save = number % settings.save_steps == 0 or run.stopped
            control.should_training_stop = run.stopped or ended

    return RolloutCallback


@cache
def mix_into_trl(mixin: type, name: str) -> Any:
    """Return a subclass of ``mixin`` and TRL's trainer ``name``; made at the first use, because TRL takes seconds to import."""
    return type(name, (mixin, getattr(import_optional("trl", extra="train"), name)), {})

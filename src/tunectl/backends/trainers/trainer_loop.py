"""Training loop of every adapter: a TRL trainer over a fixed schedule of steps, with our losses and checkpoints.

One item of the data loader is one optimizer step: a few micro-batches of rows, each within the token budget. The caller
brings a ``TrainingRun`` that computes its losses, and the TRL class whose optimizers and schedules do the rest.
"""

from __future__ import annotations

import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from tunectl.backends.modeling import (
    lora_kernels,
    model_loader,
    peft_adapter,
    short_attention,
    training_checkpoint,
    training_run,
)
from tunectl.backends.modeling.process_group import ProcessGroup
from tunectl.backends.sweeps import trial_pruning
from tunectl.backends.trainers.sft_args import check_target_modules, peft_config, to_sft_config
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.core import logging_setup, progress
from tunectl.core.errors import InfrastructureError, TunectlError
from tunectl.core.optional import import_optional
from tunectl.training import resource_check
from tunectl.training.batch_schedule import OptimizerStep
from tunectl.training.protocols import TrainResult
from tunectl.training.train_args import TrainingArgs

_log = logging_setup.get_logger(__name__)


class TrainerPlan(Protocol):
    """Protocol of the arguments of sft, reward and policy trainings: those that the common loop reads."""

    @property
    def label(self) -> str:
        """Section of the settings, which is also the label of the progress bar."""

    @property
    def profile(self) -> HardwareProfile:
        """Hardware settings: device, threads, batch sizes."""


class Stoppable(Protocol):
    """State of a training that ``stop_on_ctrl_c`` can end early."""

    stopped: bool
    """Finish this step, save, stop."""

    @property
    def plan(self) -> Any:
        """Arguments of the training; its ``label`` is in the message."""


@dataclass(frozen=True, slots=True)
class TrainerKind:
    """Which TRL trainer to use, with its argument class, peft task type and further arguments."""

    trainer: str
    """Name of its trainer class."""
    config: str
    """Name of the class of its arguments."""
    task: str
    """peft's name of what the model does."""
    sample: dict[str, list[int]]
    """One row that TRL checks at its start; the real rows are passed elsewhere."""
    settings: dict[str, Any]
    """Arguments that only this kind has."""


SFT = TrainerKind(
    "SFTTrainer",
    "SFTConfig",
    "CAUSAL_LM",
    {"input_ids": [0], "labels": [0]},
    {"dataset_kwargs": {"skip_prepare_dataset": True}},
)
REWARD = TrainerKind(
    "RewardTrainer",
    "RewardConfig",
    "SEQ_CLS",
    {"chosen_ids": [0], "rejected_ids": [0]},
    {"disable_dropout": False},  # keep the dropout that is declared
)


def wrap_with_adapter(plan: TrainingArgs, model: Any, kind: TrainerKind) -> tuple[Any, bool]:
    """Return ``model`` with a new adapter and faster kernels, and whether it needs autocast.

    Raises  UsageError when a declared LoRA target module does not exist; MissingExtraError.
    """
    torch = import_optional("torch", extra="train")
    peft = import_optional("peft", extra="train")
    check_target_modules(model, plan.adapter, plan.label)
    torch.manual_seed(plan.seed)
    peft_model = peft.get_peft_model(model, peft_config(plan.adapter, kind.task))
    low = model_loader.dtype(plan.profile) == torch.bfloat16
    if plan.profile.device == "cpu":
        short_attention.use_short_attention(model)
    fused_layers = lora_kernels.use_fused_lora(peft_model)
    layers = sum(1 for module in peft_model.modules() if hasattr(module, "lora_A"))
    return peft_model, low and fused_layers < layers


def count_trainable(model: Any) -> int:
    """Return the number of weights (elements) of a torch model that training changes."""
    return sum(weights.numel() for weights in peft_adapter.trainable_state(model).values())


def require_memory_and_disk(
    plan: TrainerPlan,
    model: Any,
    longest: int,
    work: Path,
    *,
    weight_bytes: float = 0.0,
    extra_bytes: int = 0,
    hint: str | None = None,
    ranks: int = 1,
) -> None:
    """Check that memory and disk suffice for the training, once ``model`` is loaded.

    longest       tokens of the longest row
    weight_bytes  bytes per weight, of the copies that are still to be made
    extra_bytes   bytes that are written to the disk besides checkpoints
    hint          replaces the advice on memory for a training on rows
    ranks         processes that share this machine's memory, each of which needs as much
    Raises  InfrastructureError with what is needed and what is there.
    """
    settings = model.config.get_text_config()
    own = count_trainable(model)
    size = resource_check.ModelSize(
        parameters=sum(weights.numel() for weights in model.parameters()),
        layers=settings.num_hidden_layers,
        hidden=settings.hidden_size,
        intermediate=getattr(settings, "intermediate_size", None) or 4 * settings.hidden_size,
        vocabulary=settings.vocab_size,
    )
    tokens = max(plan.profile.train_batch_tokens, longest)
    if plan.profile.device == "cpu":
        needed = resource_check.estimate_memory(
            size,
            tokens=tokens,
            trainable=own,
            checkpointing=plan.profile.gradient_checkpointing,
            weight_bytes=weight_bytes,
        )
        resource_check.check_memory(
            needed * ranks,
            resource_check.available_memory(),
            hint=hint or resource_check.memory_hint(tokens, _section(plan)),
        )
    # two checkpoints of weights, two moments, best weights and average, and the adapter itself; 4 bytes each
    resource_check.check_disk(work, 11 * 4 * own + extra_bytes + 50 * resource_check.MEGA)


def _section(plan: TrainerPlan) -> str:
    return "sft" if plan.label == "cpt" else plan.label  # cpt has no such settings


@contextmanager
def oom_to_error(plan: TrainerPlan, hint: str | None = None) -> Iterator[None]:
    """Raise a failed memory allocation in the block as InfrastructureError, with the settings to lower (or ``hint`` instead)."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if resource_check.is_out_of_memory(error):
            raise InfrastructureError(
                f"{plan.label} ran out of memory: {str(error).splitlines()[0] if str(error) else 'no more to allocate'}",
                hint=hint or resource_check.memory_hint(plan.profile.train_batch_tokens, _section(plan)),
            ) from error
        raise


def train(run: training_run.TrainingRun, model: Any, tokenizer: Any, work: Path, kind: TrainerKind) -> int:
    """Run the steps of ``run``, from the last complete checkpoint in ``work`` on; return the number of steps done.

    A checkpoint at which early stopping had ended the training is the end; no step follows it.
    Raises  InfrastructureError after Ctrl-C; UsageError where the loss is NaN or infinite.
    """
    training_run.check_ranks(run)
    resumed = latest_checkpoint(run.group, work)
    if resumed is not None:
        training_run.load_state(run, model, resumed)
        step = int(resumed.name.rpartition("-")[2])
        if training_run.is_out_of_patience(run):  # the Trainer's own state forgets that it had stopped
            _log.info("%s: stopped early at step %d of %d; nothing to resume", run.plan.label, step, len(run.steps))
            return step
        _log.info("%s: resuming from step %d of %d", run.plan.label, step, len(run.steps))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TRL asks transformers by an old name
        trainer = _trainer_class(kind.trainer)(run, model, tokenizer, work, kind)
    if resumed is None:
        run.state.first_loss = run.validate(model)
    with stop_on_ctrl_c(run), progress.bar(run.plan.label, len(run.steps)) as run.bar:
        run.clock = time.monotonic()
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    if run.stopped:
        raise InfrastructureError(
            f"{run.plan.label} stopped at step {trainer.state.global_step} of {len(run.steps)}; its state is kept",
            hint="run the same command again to resume",
        )
    return int(trainer.state.global_step)


def latest_checkpoint(group: ProcessGroup, work: Path) -> Path | None:
    """Return the checkpoint folder to resume from, None for a new start; the first rank searches, and all ranks use what it found."""
    result = training_checkpoint.latest_checkpoint(work) if group.first else None
    step = int(result.name.rpartition("-")[2]) if result else -1
    step = int(group.max(float(step))[0])
    return work / f"checkpoint-{step}" if step >= 0 else None


@contextmanager
def stop_on_ctrl_c(run: Stoppable) -> Iterator[None]:
    """Let the first Ctrl-C end the training after the current step while the block runs; a second one ends it at once."""

    def stop(_number: int, _frame: Any) -> None:
        if run.stopped:
            raise KeyboardInterrupt
        run.stopped = True
        _log.info("%s: stopping after this step; press Ctrl-C again to stop at once", run.plan.label)

    try:
        before = signal.signal(signal.SIGINT, stop)
    except ValueError:  # not the main thread: the caller handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _learn(run: training_run.TrainingRun, model: Any, step: OptimizerStep, steps_before: int, backward: Any) -> float:
    """Compute the gradients of one step, summed over the ranks; returns its mean loss. ``steps_before`` steps came before."""
    model.train()
    run.group.seed_step(run.plan.seed, steps_before)
    loss = run.learn(step, backward)
    run.group.sum_gradients(model)
    run.stopped = run.group.agree_to_stop(run.stopped)
    training_run.check_finite(run, steps_before + 1, loss)
    return loss


@cache
def _trainer_class(name: str) -> Any:
    """Return the subclass of TRL's trainer ``name``; made at the first use, because TRL takes seconds to import."""
    torch = import_optional("torch", extra="train")
    trl = import_optional("trl", extra="train")
    transformers = import_optional("transformers", extra="train")
    datasets = import_optional("datasets", extra="train")

    class Fitter(getattr(trl, name)):  # type: ignore[misc]
        """TRL's trainer over a fixed schedule of steps."""

        control: Any

        def __init__(
            self, run: training_run.TrainingRun, model: Any, tokenizer: Any, work: Path, kind: TrainerKind
        ) -> None:
            self.run = run
            super().__init__(
                model=model,
                args=to_sft_config(run.plan, kind.config, kind.settings, steps=len(run.steps), work=work),
                train_dataset=datasets.Dataset.from_list([kind.sample]),
                processing_class=tokenizer,
                callbacks=[_hooks(transformers)(run)],
            )
            for callback in (transformers.ProgressCallback, transformers.PrinterCallback):
                self.remove_callback(callback)

        def get_train_dataloader(self) -> Any:
            """Return one item per step, in the order of the schedule."""
            return torch.utils.data.DataLoader(
                self.run.steps, batch_size=1, shuffle=False, collate_fn=lambda items: {"step": items[0]}
            )

        def training_step(self, model: Any, inputs: dict[str, OptimizerStep], num_items_in_batch: Any = None) -> Any:
            """Run all micro-batches of one step; returns its mean loss."""
            loss = _learn(self.run, model, inputs["step"], self.state.global_step, self.accelerator.backward)
            return torch.tensor(loss, device=self.args.device)

        def evaluate(self, *_args: Any, **_kwargs: Any) -> dict[str, float]:
            """Compute the validation loss of the weights that would be kept, and update the best weights."""
            loss = self.run.validate(self.model)
            training_run.update_best(self.run, self.model, loss, self.state.global_step)
            if self.run.group.first:
                trial_pruning.report_validation(self.run.plan.label, self.state.global_step, loss)
            self.log({"eval_loss": loss})
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, {"eval_loss": loss})
            if training_run.is_out_of_patience(self.run):
                self.control.should_training_stop = True
            return {"eval_loss": loss}

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            first = self.run.group.first
            if first:
                transformers.Trainer._save_checkpoint(self, model, trial)  # noqa: SLF001  TRL's own adds a model card
                self.run.state.save(folder)
                training_checkpoint.finish_checkpoint(folder)
            self.run.group.end_checkpoint(folder if first else None)

    return Fitter


@cache
def _hooks(transformers: Any) -> Any:
    """Return the callback class that updates average, totals, curve and progress."""

    class FitCallback(transformers.TrainerCallback):
        """Runs after every optimizer step."""

        def __init__(self, run: training_run.TrainingRun) -> None:
            self.run = run
            self.validate_at = run.validate_at

        def on_train_begin(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
            """Show the progress of an earlier run."""
            if state.global_step:
                self.run.bar.advance(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_kwargs: Any) -> None:
            """Count, average, and decide whether to validate, save or stop."""
            run, number = self.run, state.global_step
            training_run.update_ema(run, model, number)
            training_run.update_progress(run, number)
            control.should_evaluate = number in self.validate_at
            control.should_log = control.should_evaluate or number % args.logging_steps == 0
            control.should_save = number % run.plan.save_steps == 0 or run.stopped
            control.should_training_stop = run.stopped or number >= len(run.steps)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_kwargs: Any) -> None:
            """Add a point to the curve."""
            training_run.log(self.run, state.global_step, logs)

    return FitCallback


def to_result(run: training_run.TrainingRun, steps: int, trainable: int, *, shared: bool) -> TrainResult:
    """Return the result of the training ``run`` after ``steps`` steps.

    ``trainable`` is the number of trained weights, ``shared`` whether answers shared their prompt.
    Raises  TunectlError where nothing was validated: a bug.
    """
    state = run.state
    if not state.best:
        raise TunectlError(
            f"{run.plan.label}: no validation took place in {steps} steps", hint="a bug: please report it"
        )
    return TrainResult(
        steps=steps,
        planned_steps=len(run.steps),
        best_step=state.best_step,
        best_loss=state.best_loss,
        first_loss=state.first_loss,
        tokens=state.tokens,
        tokens_apart=state.tokens_apart,
        seconds=state.seconds,
        trainable=trainable,
        shared_prompts=shared,
        history=tuple(state.history),
    )

"""Fit an adapter through TRL's ``SFTTrainer``: its loop, optimisers, schedules and trackers, with our rows and loss.

One item of the data loader is one optimiser step: a few micro-batches of rows, each within the token budget. The loss of a
step is the mean over its learned tokens, whatever the cut.
"""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tunectl.artifacts import io
from tunectl.backends import fit_run, fit_state, hf_model, torch_batch, torch_kernels, torch_probe, torch_short
from tunectl.backends.trl_arguments import arguments, peft_config, refuse_unknown_targets
from tunectl.chat import contract
from tunectl.core import log, progress
from tunectl.core.errors import EnvironmentFailure, TunectlError
from tunectl.core.lazy import need
from tunectl.training import budget, schedule
from tunectl.training.plan import FitPlan
from tunectl.training.rows import Row, separate
from tunectl.training.schedule import Step
from tunectl.training.trainer import Fitted

_log = log.get(__name__)


class TrlTrainer:
    """The trainer of the product; see ``training.trainer.Trainer``."""

    def fit(
        self, plan: FitPlan, *, model: Path, train: Sequence[Row], validation: Sequence[Row], out: Path, work: Path
    ) -> Fitted:
        """See ``training.trainer.Trainer.fit``.

        Raises  UsageError when the loss is no number (names the step and the last good loss) or a target does not exist;
                EnvironmentFailure when memory or disk do not suffice, or after Ctrl-C; MissingExtra.
        """
        with _memory_in_words(plan):
            return self._fit(plan, model, list(train), list(validation), out, work)

    def _fit(
        self, plan: FitPlan, model: Path, train: list[Row], validation: list[Row], out: Path, work: Path
    ) -> Fitted:
        _prepare_trackers(plan, work)
        peft_model, tokenizer, autocast = _adapted(plan, model)
        trainable = sum(weights.numel() for weights in peft_model.parameters() if weights.requires_grad)
        _refuse_too_big(plan, peft_model, trainable, max(row.length for row in (*train, *validation)), work)
        found = torch_probe.probe(peft_model, train, autocast=autocast)
        shared = found.shared_prompts and any(len(row.branches) > 1 for row in train)
        if not found.shared_prompts:
            train, validation = separate(train), separate(validation)
        run = fit_run.FitRun(
            plan, train, _steps(plan, train), validation, _route(peft_model, found, autocast), fit_state.FitState()
        )
        resumed = fit_state.latest(work)
        if resumed is not None:
            run.state = fit_state.FitState.load(resumed)
            _log.info("%s: going on from step %s of %d", plan.label, resumed.name.rpartition("-")[2], len(run.steps))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # TRL asks transformers by an old name
            trainer = _trainer_class()(run, peft_model, tokenizer, work)
        if resumed is None:
            run.state.first_loss = fit_run.validation_loss(run, peft_model)
        with _stop_on_ctrl_c(run), progress.bar(plan.label, len(run.steps)) as run.bar:
            run.clock = time.monotonic()
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        if run.stopped:
            raise EnvironmentFailure(
                f"{plan.label} stopped at step {trainer.state.global_step} of {len(run.steps)}; its state is kept",
                hint="run the same command to go on",
            )
        _save(peft_model, run.state.best, out, contract.load(model))
        return _fitted(run, trainer.state.global_step, trainable, shared=shared)


def _adapted(plan: FitPlan, folder: Path) -> tuple[Any, Any, bool]:
    """The model with a fresh adapter, its tokenizer, and whether it has to run under autocast."""
    torch = need("torch", extra="train")
    peft = need("peft", extra="train")
    loaded = hf_model.load(folder, adapter=None, profile=plan.profile, four_bit=plan.four_bit)
    model = loaded.model
    if plan.four_bit:
        model = peft.prepare_model_for_kbit_training(
            model, use_gradient_checkpointing=plan.profile.gradient_checkpointing
        )
    refuse_unknown_targets(model, plan.adapter)
    torch.manual_seed(plan.seed)
    adapted = peft.get_peft_model(model, peft_config(plan.adapter))
    low = hf_model.dtype(plan.profile) == torch.bfloat16
    if plan.profile.device == "cpu":
        torch_short.speed_up(model)
    sped = torch_kernels.speed_up_lora(adapted)
    layers = sum(1 for module in adapted.modules() if hasattr(module, "lora_A"))
    return adapted, loaded.tokenizer, low and sped < layers


def _route(model: Any, found: torch_probe.Probe, autocast: bool) -> torch_batch.Route:
    return torch_batch.route_of(model, plain_head=found.plain_head, autocast=autocast)


def _steps(plan: FitPlan, rows: list[Row]) -> list[Step]:
    return schedule.plan(
        rows, epochs=plan.epochs, answers=plan.batch_answers, tokens=plan.profile.train_tokens, seed=plan.seed
    )


def _refuse_too_big(plan: FitPlan, model: Any, trainable: int, longest: int, work: Path) -> None:
    settings = model.config.get_text_config()
    size = budget.Size(
        parameters=sum(weights.numel() for weights in model.parameters()),
        layers=settings.num_hidden_layers,
        hidden=settings.hidden_size,
        intermediate=getattr(settings, "intermediate_size", None) or 4 * settings.hidden_size,
        vocabulary=settings.vocab_size,
    )
    tokens = max(plan.profile.train_tokens, longest)
    if plan.profile.device == "cpu":
        needed = budget.memory(
            size, tokens=tokens, trainable=trainable, checkpointing=plan.profile.gradient_checkpointing, weight_bytes=0
        )
        budget.refuse_too_little_memory(needed, budget.available_memory(), tokens=tokens)
    # two checkpoints of value, two moments, best and average, and the adapter itself; 4 bytes each
    budget.refuse_too_little_disk(work, 11 * 4 * trainable + 50 * budget.MEGA)


def _prepare_trackers(plan: FitPlan, work: Path) -> None:
    """Missing ones are named before anything is loaded; curves for TensorBoard outlive the work."""
    for name in plan.report_to:
        need(name, extra=name)
    if "tensorboard" in plan.report_to:
        folder = os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(work.parent / "tensorboard" / work.name))
        _log.info("%s: curves for tensorboard --logdir %s", plan.label, folder)


@contextmanager
def _memory_in_words(plan: FitPlan) -> Iterator[None]:
    """Turn a failed allocation into an error that says what to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        words = str(error).lower()
        if isinstance(error, MemoryError) or "out of memory" in words or "can't allocate memory" in words:
            raise EnvironmentFailure(
                f"{plan.label} ran out of memory: {str(error).splitlines()[0] if str(error) else 'no more to allocate'}",
                hint=budget.what_to_lower(plan.profile.train_tokens),
            ) from error
        raise


@contextmanager
def _stop_on_ctrl_c(run: fit_run.FitRun) -> Iterator[None]:
    """The first Ctrl-C ends the fit after the step under way; a second one ends it at once."""

    def stop(_number: int, _frame: Any) -> None:
        if run.stopped:
            raise KeyboardInterrupt
        run.stopped = True
        _log.info("%s: stopping after this step; press Ctrl-C again to stop at once", run.plan.label)

    try:
        before = signal.signal(signal.SIGINT, stop)
    except ValueError:  # not the main thread: whoever runs us there deals with signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@cache
def _trainer_class() -> Any:
    """The subclass of ``SFTTrainer``; made at the first use, because TRL takes seconds to import."""
    torch = need("torch", extra="train")
    trl = need("trl", extra="train")
    transformers = need("transformers", extra="train")
    datasets = need("datasets", extra="train")

    class Fitter(trl.SFTTrainer):  # type: ignore[name-defined]
        """TRL's trainer over a fixed schedule of steps."""

        control: Any

        def __init__(self, run: fit_run.FitRun, model: Any, tokenizer: Any, work: Path) -> None:
            self.run = run
            sample = datasets.Dataset.from_list(
                [{"input_ids": [0], "labels": [0]}]
            )  # TRL looks at one row; ours are elsewhere
            super().__init__(
                model=model,
                args=arguments(run.plan, steps=len(run.steps), work=work),
                train_dataset=sample,
                processing_class=tokenizer,
                callbacks=[_hooks(transformers)(run)],
            )
            for callback in (transformers.ProgressCallback, transformers.PrinterCallback):
                self.remove_callback(callback)

        def get_train_dataloader(self) -> Any:
            """One item a step, in the order of the schedule."""
            return torch.utils.data.DataLoader(
                self.run.steps, batch_size=1, shuffle=False, collate_fn=lambda items: {"step": items[0]}
            )

        def training_step(self, model: Any, inputs: dict[str, Step], num_items_in_batch: Any = None) -> Any:
            """All micro-batches of one step; returns the mean loss of its learned tokens."""
            model.train()
            loss = fit_run.step_loss(self.run, inputs["step"], self.accelerator.backward)
            fit_run.refuse_no_number(self.run, self.state.global_step + 1, loss)
            return torch.tensor(loss, device=self.args.device)

        def evaluate(self, *_args: Any, **_kwargs: Any) -> dict[str, float]:
            """Validation loss of the weights that would be kept, and what follows from it."""
            loss = fit_run.validation_loss(self.run, self.model)
            fit_run.judge(self.run, self.model, loss, self.state.global_step)
            self.log({"eval_loss": loss})
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, {"eval_loss": loss})
            if self.run.plan.patience is not None and self.run.state.misses >= self.run.plan.patience:
                self.control.should_training_stop = True
            return {"eval_loss": loss}

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            transformers.Trainer._save_checkpoint(self, model, trial)  # noqa: SLF001  TRL's own adds a model card
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            self.run.state.save(folder)
            fit_state.finish_checkpoint(folder)

    return Fitter


@cache
def _hooks(transformers: Any) -> Any:
    """The callback class that moves average, totals, curve and progress on."""

    class Hooks(transformers.TrainerCallback):
        """Runs after every optimiser step."""

        def __init__(self, run: fit_run.FitRun) -> None:
            self.run = run
            self.validate_at = run.validate_at

        def on_train_begin(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
            """Show what an earlier run did already."""
            if state.global_step:
                self.run.bar.advance(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_kwargs: Any) -> None:
            """Count, average, and decide what comes next."""
            run, number = self.run, state.global_step
            fit_run.move_average(run, model, number)
            fit_run.count(run, number)
            control.should_evaluate = number in self.validate_at
            control.should_log = control.should_evaluate or number % args.logging_steps == 0
            control.should_save = number % run.plan.checkpoint_steps == 0 or run.stopped
            control.should_training_stop = run.stopped or number >= len(run.steps)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_kwargs: Any) -> None:
            """Add a point to the curve."""
            fit_run.note(self.run, state.global_step, logs)

    return Hooks


def _save(model: Any, best: dict[str, Any], out: Path, base: contract.Contract) -> None:
    """Write the adapter: the same weights give the same bytes, and no path of this machine is in it."""
    torch = need("torch", extra="train")
    with torch.no_grad():
        fit_run.put(model, best)
    model.save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)
    settings: dict[str, Any] = io.read_json(out / "adapter_config.json", dict[str, Any])
    settings |= {"base_model_name_or_path": base.base, "revision": base.revision}
    if isinstance(settings.get("target_modules"), list):
        settings["target_modules"] = sorted(settings["target_modules"])
    io.write_json(out / "adapter_config.json", settings)


def _fitted(run: fit_run.FitRun, steps: int, trainable: int, *, shared: bool) -> Fitted:
    state = run.state
    if not state.best:
        raise TunectlError(f"{run.plan.label}: no validation took place in {steps} steps")
    return Fitted(
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

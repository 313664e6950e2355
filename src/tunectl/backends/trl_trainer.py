"""Fit an adapter through TRL's ``SFTTrainer``: its loop, optimisers, schedules and trackers, with our rows and loss.

One item of the data loader is one optimiser step: a few micro-batches of rows, each within the token budget. The loss of a
step is the mean over its learned tokens, whatever the cut.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tunectl.artifacts import io
from tunectl.backends import fit_state, hf_model, torch_batch, torch_kernels, torch_probe
from tunectl.backends.trl_arguments import arguments, peft_config, refuse_unknown_targets
from tunectl.chat import contract
from tunectl.core import log, progress
from tunectl.core.errors import EnvironmentFailure, TunectlError, UsageError
from tunectl.core.lazy import need
from tunectl.training import budget, schedule
from tunectl.training.plan import FitPlan
from tunectl.training.rows import Row, separate
from tunectl.training.schedule import Step
from tunectl.training.trainer import Fitted, Point

_log = log.get(__name__)


@dataclass
class _Run:
    """What the trainer's hooks share."""

    plan: FitPlan
    rows: list[Row]
    steps: list[Step]
    validation: list[Row]
    route: torch_batch.Route
    state: fit_state.FitState
    bar: Any = None
    stopped: bool = False
    """Ctrl-C was pressed: finish this step, save, stop."""
    clock: float = 0.0
    last_good: tuple[int, float] | None = None
    fresh_tokens: int = 0
    fresh_seconds: float = 0.0

    @property
    def validate_at(self) -> set[int]:
        """Steps after which the validation loss is measured; the last is one."""
        count = max(1, round(self.plan.validations * self.plan.epochs))
        return {max(1, round(len(self.steps) * (turn + 1) / count)) for turn in range(count)}


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
        _refuse_missing_trackers(plan)
        peft_model, tokenizer, autocast = _adapted(plan, model)
        trainable = sum(weights.numel() for weights in peft_model.parameters() if weights.requires_grad)
        _refuse_too_big(plan, peft_model, trainable, max(row.length for row in (*train, *validation)), work)
        found = torch_probe.probe(peft_model, train, device=plan.profile.device, autocast=autocast)
        shared = found.shared_prompts and any(len(row.branches) > 1 for row in train)
        if not found.shared_prompts:
            train, validation = separate(train), separate(validation)
        run = _Run(plan, train, _steps(plan, train), validation, _route(peft_model, found, autocast), fit_state.FitState())
        resumed = fit_state.latest(work)
        if resumed is not None:
            run.state = fit_state.FitState.load(resumed)
            _log.info("%s: going on from step %s of %d", plan.label, resumed.name.rpartition("-")[2], len(run.steps))
        trainer = _trainer_class()(run, peft_model, tokenizer, work)
        if resumed is None:
            run.state.first_loss = trainer.validate()
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
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=plan.profile.gradient_checkpointing)
    refuse_unknown_targets(model, plan.adapter)
    torch.manual_seed(plan.seed)
    adapted = peft.get_peft_model(model, peft_config(plan.adapter))
    low = hf_model.dtype(plan.profile) == torch.bfloat16
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


def _refuse_missing_trackers(plan: FitPlan) -> None:
    for name in plan.report_to:
        need(name, extra=name)


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
def _stop_on_ctrl_c(run: _Run) -> Iterator[None]:
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

    class Fitter(trl.SFTTrainer):  # type: ignore[misc, name-defined]
        """TRL's trainer over a fixed schedule of steps."""

        def __init__(self, run: _Run, model: Any, tokenizer: Any, work: Path) -> None:
            self.run = run
            sample = datasets.Dataset.from_list([{"input_ids": [0], "labels": [0]}])  # TRL looks at one row; ours are elsewhere
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
            return torch.utils.data.DataLoader(self.run.steps, batch_size=1, shuffle=False, collate_fn=lambda items: {"step": items[0]})

        def training_step(self, model: Any, inputs: dict[str, Step], num_items_in_batch: Any = None) -> Any:
            """All micro-batches of one step; returns the mean loss of its learned tokens."""
            model.train()
            run = self.run
            parts = [
                torch_batch.batch_of([run.rows[number] for number in group], run.plan.profile.device)
                for group in inputs["step"].batches
            ]
            weight = sum(float(part.weights.sum()) for part in parts)
            total = torch.zeros((), device=self.args.device)
            for part in parts:
                loss = torch_batch.loss_of(run.route, part, smoothing=run.plan.label_smoothing) / weight
                self.accelerator.backward(loss)
                total += loss.detach()
            _refuse_no_number(run, self.state.global_step + 1, float(total))
            return total

        def evaluate(self, *_args: Any, **_kwargs: Any) -> dict[str, float]:
            """Validation loss of the weights that would be kept, and what follows from it."""
            loss = self.validate()
            _judge(self.run, self.model, loss, self.state.global_step)
            self.log({"eval_loss": loss})
            if self.run.plan.patience is not None and self.run.state.misses >= self.run.plan.patience:
                self.control.should_training_stop = True
            return {"eval_loss": loss}

        def validate(self) -> float:
            """Nats a learned token on the validation rows, with the moving average where one is kept."""
            run = self.run
            self.model.eval()
            with _averaged(self.model, run.state.average), torch.inference_mode():
                total, weight = 0.0, 0.0
                cut = schedule.batches(run.validation, range(len(run.validation)), run.plan.profile.train_tokens)
                for group in cut:
                    part = torch_batch.batch_of([run.validation[number] for number in group], run.plan.profile.device)
                    total += float(torch_batch.loss_of(run.route, part))
                    weight += float(part.weights.sum())
            self.model.train()
            return total / weight

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            transformers.Trainer._save_checkpoint(self, model, trial)  # noqa: SLF001  TRL's own adds a model card
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            self.run.state.save(folder)
            fit_state.finish_checkpoint(folder)

    return Fitter


def _refuse_no_number(run: _Run, step: int, loss: float) -> None:
    if loss - loss == 0:  # neither infinite nor NaN
        run.last_good = (step, loss)
        return
    good = f"the last good loss was {run.last_good[1]:.4f} at step {run.last_good[0]}" if run.last_good else "there was no good loss before"
    raise UsageError(
        f"{run.plan.label}: the loss is {loss} at step {step}; {good}",
        hint=f"lower {run.plan.label}.learning_rate (now {run.plan.learning_rate:g}), or set {run.plan.label}.clip=1.0",
    )


def _judge(run: _Run, model: Any, loss: float, step: int) -> None:
    """Keep the weights if they are the best so far."""
    state = run.state
    if state.best and loss >= state.best_loss - run.plan.least_gain:
        state.misses += 1
    else:
        state.misses = 0
    if not state.best or loss < state.best_loss:
        state.best_loss, state.best_step = loss, step
        state.best = {name: value.clone() for name, value in (state.average or _trained(model)).items()}


def _trained(model: Any) -> dict[str, Any]:
    """Trained weights by name, detached."""
    return {name: weights.detach() for name, weights in model.named_parameters() if weights.requires_grad}


@contextmanager
def _averaged(model: Any, average: dict[str, Any]) -> Iterator[None]:
    """Put ``average`` into the model while the block runs."""
    own = {name: value.clone() for name, value in _trained(model).items()} if average else {}
    _put(model, average)
    try:
        yield
    finally:
        _put(model, own)


def _put(model: Any, weights: dict[str, Any]) -> None:
    here = _trained(model)
    for name, value in weights.items():
        here[name].copy_(value)


@cache
def _hooks(transformers: Any) -> Any:
    """The callback class that moves average, totals, curve and progress on."""

    class Hooks(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
        """Runs after every optimiser step."""

        def __init__(self, run: _Run) -> None:
            self.run = run
            self.validate_at = run.validate_at

        def on_train_begin(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
            """Show what an earlier run did already."""
            if state.global_step:
                self.run.bar.advance(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_kwargs: Any) -> None:
            """Count, average, and decide what comes next."""
            run, number = self.run, state.global_step
            _move_average(run, model, number)
            _count(run, number)
            control.should_evaluate = number in self.validate_at
            control.should_log = control.should_evaluate or number % args.logging_steps == 0
            control.should_save = number % run.plan.checkpoint_steps == 0 or run.stopped
            control.should_training_stop = run.stopped or number >= len(run.steps)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_kwargs: Any) -> None:
            """Add a point to the curve."""
            _note(self.run, state.global_step, logs)

    return Hooks


def _move_average(run: _Run, model: Any, step: int) -> None:
    """Exponential moving average whose memory grows with the steps, so that the start is forgotten."""
    if run.plan.average is None:
        return
    if not run.state.average:
        run.state.average = {name: value.clone() for name, value in _trained(model).items()}
        return
    decay = min(run.plan.average, (1 + step) / (10 + step))
    for name, value in _trained(model).items():
        run.state.average[name].lerp_(value, 1 - decay)


def _count(run: _Run, number: int) -> None:
    rows = [run.rows[index] for group in run.steps[number - 1].batches for index in group]
    tokens = sum(row.length + len(row.branches) for row in rows)
    now = time.monotonic()
    run.state.tokens += tokens
    run.state.tokens_apart += sum(row.apart for row in rows)
    run.state.seconds += now - run.clock
    run.fresh_tokens += tokens
    run.fresh_seconds += now - run.clock
    run.clock = now
    speed = run.fresh_tokens / max(run.fresh_seconds, 1e-9)
    figures = {"tokens/s": f"{speed:.0f}", "loss": f"{run.last_good[1]:.3f}" if run.last_good else "-"}
    if run.state.best:
        figures["validation"] = f"{run.state.best_loss:.3f}"
    run.bar.advance(1, **figures)


def _note(run: _Run, step: int, logs: dict[str, float]) -> None:
    epoch = run.steps[max(step, 1) - 1].epoch
    history = run.state.history
    if "eval_loss" in logs and history and history[-1].step == step:
        history[-1] = replace_point(history[-1], logs["eval_loss"])
        now = time.monotonic()
        run.state.seconds, run.clock = run.state.seconds + now - run.clock, now
        _log.info("%s: step %d of %d, loss %.4f, validation loss %.4f", run.plan.label, step, len(run.steps), history[-1].loss or 0.0, logs["eval_loss"])
    elif "loss" in logs:
        speed = run.fresh_tokens / max(run.fresh_seconds, 1e-9)
        history.append(Point(step, epoch, logs["loss"], None, logs.get("learning_rate", 0.0), round(speed, 1)))
        run.fresh_tokens, run.fresh_seconds = 0, 0.0


def replace_point(point: Point, validation_loss: float) -> Point:
    """``point`` with its validation loss."""
    return Point(point.step, point.epoch, point.loss, validation_loss, point.learning_rate, point.tokens_per_second)


def _save(model: Any, best: dict[str, Any], out: Path, base: contract.Contract) -> None:
    """Write the adapter: the same weights give the same bytes, and no path of this machine is in it."""
    torch = need("torch", extra="train")
    with torch.no_grad():
        _put(model, best)
    model.save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)
    settings = io.read_json(out / "adapter_config.json", dict[str, Any])
    settings |= {"base_model_name_or_path": base.base, "revision": base.revision}
    if isinstance(settings.get("target_modules"), list):
        settings["target_modules"] = sorted(settings["target_modules"])
    io.write_json(out / "adapter_config.json", settings)


def _fitted(run: _Run, steps: int, trainable: int, *, shared: bool) -> Fitted:
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

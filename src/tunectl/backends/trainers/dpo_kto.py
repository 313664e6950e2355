"""Train on judgments through TRL's ``DPOTrainer`` and ``KTOTrainer``: their loop, losses and logs.

Replaced are the slow parts. The answers of one prompt are in one row, so the prompt is read once for both; logits are computed
for answers only; and sft's log-probabilities of every answer are computed once, before the first step, and kept in the work folder. The loss
itself is TRL's own code, with log-probabilities that were computed this way.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import median_low
from typing import Any

from tunectl.backends.modeling import peft_adapter
from tunectl.backends.modeling.process_group import SINGLE, ProcessGroup
from tunectl.backends.trainers import online_rl, trainer_base, trainer_loop
from tunectl.backends.trainers.offline_logprobs import NOT_MEASURED, PairLogprobs, build_dpo_inputs, build_kto_inputs
from tunectl.backends.trainers.offline_run import HELD_OUT, TRAIN, OfflineRun, prepare_run, row_indices
from tunectl.backends.trainers.rl_args import to_preference_config
from tunectl.backends.trainers.rl_checkpoint import RlTrainerState
from tunectl.chat import model_spec
from tunectl.config.schema.align import Dpo, Kto
from tunectl.core.optional import import_optional
from tunectl.training import batch_schedule
from tunectl.training.batch_schedule import OptimizerStep
from tunectl.training.rl.preference_batches import LabeledCompletions
from tunectl.training.rl.rl_types import PolicyData, RewardFunctions, RlArgs, RlResult, StepMetrics


class OfflineTrainerMixin(trainer_base.PolicyTrainerMixin):
    """Mixin over TRL's DPOTrainer or KTOTrainer: replaces their training step, loss inputs and logs."""

    run: OfflineRun
    accelerator: Any
    model: Any

    def _prepare_dataset(self, dataset: Any, *_args: Any, **_kwargs: Any) -> Any:
        """Return a placeholder: the tokens of the data are kept elsewhere."""
        return dataset

    def training_step(self, model: Any, inputs: dict[str, OptimizerStep], num_items_in_batch: Any = None) -> Any:
        """Run all micro-batches of one step; return its mean loss as a scalar tensor."""
        run, number = self.run, self.state.global_step + 1
        model.train()
        with run.state.time_block("learn"):
            loss, margin, kl = self._learn(inputs["numbers"], number)
        run.stopped = run.group.agree_to_stop(run.stopped)
        trainer_base.require_finite_loss(run, number, loss)
        run.state.answers += sum(len(run.data.judged[item].good) for item in row_indices(inputs["numbers"]))
        now = time.monotonic()
        seconds, run.clock = now - run.clock, now
        rate = self._get_learning_rate()
        run.state.history.append(StepMetrics(number, loss, rate, margin, None, kl, None, None, seconds))
        return import_optional("torch", extra="train").tensor(loss, device=self.args.device)

    def _learn(self, step: OptimizerStep, number: int) -> tuple[float, float | None, float | None]:
        """Forward and backward; returns the mean loss of the step's answers, the margin of good over bad ones, and kto's KL (nats)."""
        run = self.run
        count = sum(len(run.data.judged[item].good) for item in row_indices(step))
        apart = None
        if run.mismatched:
            start = sum(len(row_indices(before)) for before in run.steps[: number - 1])
            apart = run.compute_kl_logprobs(TRAIN, range(start, start + len(row_indices(step))))
        total, ratios, kinds = 0.0, list[float](), list[float]()
        for group in run.rank_batches([item.row for item in run.data.judged], step):
            pair_logprobs = run.compute_logprobs(TRAIN, group)
            loss = self.loss_of(pair_logprobs, apart) * (len(pair_logprobs.policy.mask) / count)
            self.accelerator.backward(loss)
            total += float(loss.detach())
            ratios += pair_logprobs.ratios().tolist()
            kinds += [kind for item in pair_logprobs.completions for kind in item.good]
        kl = None if apart is None else max(0.0, float((apart[0] - apart[1]).mean()))
        run.group.sum_gradients(self.model)
        good = [kind > 0 for kind in run.group.join(kinds)]
        return run.group.sum(total)[0], _margin(run.group.join(ratios), good, run.settings.beta), kl

    def loss_of(self, pair_logprobs: PairLogprobs, apart: tuple[Any, Any] | None) -> Any:
        """Return TRL's loss of some answers, a scalar: the mean over pairs (dpo) or answers (kto).

        ``apart``: for kto the log-probabilities of the mismatched pairs, as ``OfflineRun.compute_kl_logprobs`` returns them.
        """
        torch = import_optional("torch", extra="train")
        settings = self.run.settings
        if isinstance(settings, Dpo):
            model, batch = build_dpo_inputs(pair_logprobs, settings.ld_alpha)
        else:
            assert apart is not None
            model, batch = build_kto_inputs(pair_logprobs, *apart)
        loss = self.compute_loss(model, batch)
        # kto's mean skips answers whose loss is NaN, which would hide the failure
        return loss if bool(torch.isfinite(pair_logprobs.policy.values.detach()).all()) else loss * torch.nan

    def evaluate_held_out(self) -> tuple[float, float | None]:
        """Return the mean loss of the validation judgments, and the share (0 to 1) of pairs ranked right, where ties count half; the share is None without pairs."""
        run, torch = self.run, import_optional("torch", extra="train")
        rows = [item.row for item in run.data.held_out]
        self.model.eval()
        total, ratios = 0.0, []
        with torch.no_grad():
            apart = run.compute_kl_logprobs(HELD_OUT, range(len(rows))) if run.mismatched else None
            for group in run.rank_batches(rows):
                pair_logprobs = run.compute_logprobs(HELD_OUT, group)
                total += float(self.loss_of(pair_logprobs, apart)) * len(pair_logprobs.policy.mask)
                ratios += list(
                    zip(pair_logprobs.completions, pair_logprobs.ratios().split(_sizes(pair_logprobs)), strict=True)
                )
        self.model.train()
        answers = sum(len(row.branches) for row in rows)
        (total,) = run.group.sum(total)
        if any(item.good != (True, False) for item in run.data.held_out):
            return total / answers, None
        right = run.group.join([float(pair[0] > pair[1]) + 0.5 * float(pair[0] == pair[1]) for _, pair in ratios])
        return total / answers, sum(right) / len(right)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as TRL does, without the values that are not measured here; ``start_time`` is passed on to TRL."""
        for metrics in self._metrics.values():
            for name in NOT_MEASURED:
                metrics.pop(name, None)
        super().log(logs, start_time)


class DpoKtoTrainer:
    """The ``PolicyTrainer`` of the methods dpo and kto: trains on judged answers with TRL's losses."""

    def __init__(self, group: ProcessGroup = SINGLE) -> None:
        """``group`` is the processes that train together; every one of them makes the same calls."""
        self._group = group

    def fit(
        self, plan: RlArgs, *, model: Path, sft: Path, data: PolicyData, judges: RewardFunctions, out: Path, work: Path
    ) -> RlResult:
        """Train on judged answers, and return the run with the weights of the best validation, which are written to ``out``.

        Raises  UsageError when the loss is NaN or infinite, or every answer of a validation was cut; ArtifactError where an adapter does
                not load; InfrastructureError when memory or disk do not suffice, or after Ctrl-C; MissingExtraError.
        """
        with trainer_loop.oom_to_error(plan, trainer_base.suggest_less_memory(plan)):
            return self._fit(plan, model, sft, data, judges, out, work)

    def _fit(
        self, plan: RlArgs, model: Path, sft: Path, data: PolicyData, judges: RewardFunctions, out: Path, work: Path
    ) -> RlResult:
        settings, group = plan.settings, self._group
        assert isinstance(settings, Dpo | Kto)
        steps = _steps(plan, settings, data.judged)
        usual = median_low([len(row_indices(step)) for step in steps])
        more = f"or raise align.batch_size (now {settings.batch_size})"
        trainer_base.check_rank_count(group, plan.profile.device, usual, "judged input", more)
        peft_model, tokenizer = online_rl.load_policy(plan, model, sft)
        rows = [item.row for item in (*data.judged, *data.held_out)]
        answers = sum(len(branch.ids) for row in rows for branch in row.branches)
        nats = 4 * answers * (1 if isinstance(settings, Dpo) else 2)  # kto reads mismatched pairs too
        longest = max(row.length for row in rows)
        trainer_base.require_memory_and_disk(
            plan, peft_model, longest, work, extra_bytes=nats, ranks=group.local_world_size
        )
        resumed = trainer_loop.latest_checkpoint(group, work)
        state = RlTrainerState.load(resumed) if resumed else RlTrainerState()
        trainer = build_trainer(plan, settings, peft_model, tokenizer, len(steps), work)
        policy = online_rl.prepare_policy(plan, peft_model, tokenizer, data)
        run = trainer.run = prepare_run(plan, policy, data, judges, steps, state, work, group)
        run.trainer = trainer
        last_step = trainer_base.run_steps(run, trainer, resumed)
        if group.first:
            peft_adapter.save_adapter(peft_model, state.best, out, model_spec.load(model))
        return online_rl.to_result(state, last_step, len(steps), trainer_loop.count_trainable(peft_model))


def _steps(plan: RlArgs, settings: Dpo | Kto, completions: Sequence[LabeledCompletions]) -> list[OptimizerStep]:
    answers = 2 * settings.batch_size if isinstance(settings, Dpo) else settings.batch_size
    return batch_schedule.build_schedule(
        [item.row for item in completions],
        epochs=settings.epochs,
        answers=answers,
        tokens=plan.profile.train_batch_tokens,
        seed=plan.seed,
    )


def _sizes(pair_logprobs: PairLogprobs) -> list[int]:
    return [len(item.good) for item in pair_logprobs.completions]


def _margin(ratios: Sequence[float], kinds: Sequence[bool], beta: float) -> float | None:
    """Return mean reward of the good answers minus that of the bad ones; None where either kind is absent."""
    good = [ratio for ratio, kind in zip(ratios, kinds, strict=True) if kind]
    bad = [ratio for ratio, kind in zip(ratios, kinds, strict=True) if not kind]
    return beta * (sum(good) / len(good) - sum(bad) / len(bad)) if good and bad else None


def build_trainer(plan: RlArgs, settings: Dpo | Kto, model: Any, tokenizer: Any, steps: int, work: Path) -> Any:
    """Return TRL's trainer for ``settings`` over a peft model, for ``steps`` optimizer steps."""
    datasets = import_optional("datasets", extra="train")
    callback = trainer_base.make_callback_class()()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TRL asks transformers by an old name
        trainer = trainer_base.mix_into_trl(
            OfflineTrainerMixin, "DPOTrainer" if isinstance(settings, Dpo) else "KTOTrainer"
        )(
            model=model,
            args=to_preference_config(plan, settings, steps, work),
            # a placeholder: the rows come from our data loader
            train_dataset=datasets.Dataset.from_list([{"prompt": ""}]),
            processing_class=tokenizer,
            callbacks=[callback],
        )
    callback.trainer = trainer
    trainer_base.mute_progress(trainer)
    if (
        "ref" in model.peft_config
    ):  # drop TRL's copy of the adapter: reference log-probabilities are computed beforehand
        model.delete_adapter("ref")
    trainer.precompute_ref_logps = True  # set here, because TRL would process the data set in its constructor
    trainer.aux_loss_enabled = False  # no router loss for mixtures of experts, as in sft
    return trainer

"""Fit an adapter through TRL's ``SFTTrainer``: its loop, optimisers, schedules and trackers, with our rows and loss.

The loss of a step is the mean over its learned tokens, whatever the cut into micro-batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunectl.backends import adapter_start, fit_run, fit_state, hf_model, torch_batch, torch_probe, trl_loop
from tunectl.chat import contract
from tunectl.core.lazy import need
from tunectl.training import schedule
from tunectl.training.plan import FitPlan
from tunectl.training.rows import Row, separate
from tunectl.training.schedule import Step
from tunectl.training.trainer import Fitted


class TrlTrainer:
    """The trainer of the product; see ``training.trainer.Trainer``."""

    def fit(
        self, plan: FitPlan, *, model: Path, train: Sequence[Row], validation: Sequence[Row], out: Path, work: Path
    ) -> Fitted:
        """See ``training.trainer.Trainer.fit``.

        Raises  UsageError when the loss is no number (names the step and the last good loss) or a target does not exist;
                EnvironmentFailure when memory or disk do not suffice, or after Ctrl-C; MissingExtra.
        """
        with trl_loop.memory_in_words(plan):
            return self._fit(plan, model, list(train), list(validation), out, work)

    def _fit(
        self, plan: FitPlan, model: Path, train: list[Row], validation: list[Row], out: Path, work: Path
    ) -> Fitted:
        trl_loop.prepare_trackers(plan, work)
        peft_model, tokenizer, autocast = _adapted(plan, model)
        trl_loop.refuse_too_big(plan, peft_model, max(row.length for row in (*train, *validation)), work)
        found = torch_probe.probe(peft_model, train, autocast=autocast)
        shared = found.shared_prompts and any(len(row.branches) > 1 for row in train)
        if not found.shared_prompts:
            train, validation = separate(train), separate(validation)
        route = torch_batch.route_of(peft_model, plain_head=found.plain_head, autocast=autocast)
        run = fit_run.FitRun(plan, train, _steps(plan, train), validation, route, fit_state.FitState())
        steps = trl_loop.train(run, peft_model, tokenizer, work, trl_loop.SFT)
        trl_loop.save(peft_model, run.state.best, out, contract.load(model))
        return trl_loop.fitted(run, steps, trl_loop.trainable(peft_model), shared=shared)


def _adapted(plan: FitPlan, folder: Path) -> tuple[Any, Any, bool]:
    """The model with the adapter that is to be fitted, its tokenizer, and whether it has to run under autocast."""
    peft = need("peft", extra="train")
    loaded = hf_model.load(folder, adapter=None, profile=plan.profile, four_bit=plan.four_bit)
    model = loaded.model
    if plan.four_bit:
        model = peft.prepare_model_for_kbit_training(
            model, use_gradient_checkpointing=plan.profile.gradient_checkpointing
        )
    adapted, autocast = trl_loop.adapted(plan, model, trl_loop.SFT)
    if plan.start is not None:
        adapter_start.take(adapted, plan.start, plan.adapter)
    return adapted, loaded.tokenizer, autocast


def _steps(plan: FitPlan, rows: list[Row]) -> list[Step]:
    return schedule.plan(
        rows, epochs=plan.epochs, answers=plan.batch_answers, tokens=plan.profile.train_tokens, seed=plan.seed
    )

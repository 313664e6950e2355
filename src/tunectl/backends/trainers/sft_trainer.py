"""Train an adapter through TRL's ``SFTTrainer``: its loop, optimizers, schedules and trackers, with our rows and loss.

The loss of a step is the mean over its trained tokens, independent of the micro-batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunectl.backends.modeling import (
    batching,
    capability_probe,
    layer_sharding,
    model_loader,
    peft_adapter,
    training_checkpoint,
    training_run,
    warm_start,
)
from tunectl.backends.modeling.process_group import SINGLE, ProcessGroup
from tunectl.backends.trainers import private_run, trainer_loop
from tunectl.chat import model_spec
from tunectl.core.optional import import_optional
from tunectl.training import batch_schedule
from tunectl.training.batch_schedule import OptimizerStep
from tunectl.training.prefix_sharing import PackedRow, one_answer_per_row
from tunectl.training.protocols import TrainResult
from tunectl.training.train_args import TrainingArgs


class SftTrainer:
    """Trains adapters for sft and cpt with TRL (a ``training.protocols.Trainer``)."""

    def __init__(self, group: ProcessGroup = SINGLE) -> None:
        """``group`` is the processes that train together; every one of them makes the same calls."""
        self._group = group

    def fit(
        self,
        plan: TrainingArgs,
        *,
        model: Path,
        train: Sequence[PackedRow],
        validation: Sequence[PackedRow],
        out: Path,
        work: Path,
    ) -> TrainResult:
        """Train an adapter, write the weights of the best validation loss (in a private training: the last ones) to ``out``, and return the result.

        Raises  UsageError when the loss is NaN or infinite (with the step and the last good loss), a LoRA target module does not exist,
                or the settings of a private training are impossible; DataError where it has too few people or sources;
                InfrastructureError when memory or disk do not suffice, or after Ctrl-C; MissingExtraError.
        """
        if plan.privacy is not None:
            private_run.check(plan.privacy, train, self._group)
        with trainer_loop.oom_to_error(plan):
            return self._fit(plan, model, list(train), list(validation), out, work)

    def _fit(
        self,
        plan: TrainingArgs,
        model: Path,
        train: list[PackedRow],
        validation: list[PackedRow],
        out: Path,
        work: Path,
    ) -> TrainResult:
        peft_model, tokenizer, autocast = load_with_adapter(plan, model, self._group)
        longest = max(row.length for row in (*train, *validation))
        trainer_loop.require_memory_and_disk(plan, peft_model, longest, work, ranks=self._group.local_world_size)
        capabilities = capability_probe.probe(peft_model, train, autocast=autocast)
        shared = capabilities.shared_prompts and any(len(row.branches) > 1 for row in train)
        if not capabilities.shared_prompts:
            train, validation = one_answer_per_row(train), one_answer_per_row(validation)
        route = batching.forward_path(peft_model, plain_head=capabilities.plain_head, autocast=autocast)
        if plan.privacy is None:
            run = training_run.TrainingRun(
                plan,
                train,
                _steps(plan, train),
                validation,
                route,
                training_checkpoint.TrainerState(),
                group=self._group,
            )
        else:
            base = model_spec.load(model).weights_sha256
            run = private_run.build(plan, plan.privacy, train, validation, route, peft_model, base=base)
        steps = trainer_loop.train(run, peft_model, tokenizer, work, trainer_loop.SFT)
        if run.group.first:
            peft_adapter.save_adapter(peft_model, run.state.best, out, model_spec.load(model))
        result = trainer_loop.to_result(run, steps, trainer_loop.count_trainable(peft_model), shared=shared)
        return replace(result, privacy=run.budget()) if isinstance(run, private_run.PrivateRun) else result


def load_with_adapter(plan: TrainingArgs, folder: Path, group: ProcessGroup = SINGLE) -> tuple[Any, Any, bool]:
    """Return the model in ``folder`` with a new adapter to train, its tokenizer, and whether it needs autocast.

    The adapter is drawn in the memory of the machine, so that every device starts from the same numbers.
    """
    peft = import_optional("peft", extra="train")
    loaded = model_loader.load(folder, adapter=None, profile=plan.profile, four_bit=plan.four_bit, device="cpu")
    model = loaded.model
    if plan.four_bit:
        model = peft.prepare_model_for_kbit_training(
            model, use_gradient_checkpointing=plan.profile.gradient_checkpointing
        )
    adapted, autocast = trainer_loop.wrap_with_adapter(plan, model, trainer_loop.SFT)
    if plan.init_adapter is not None:
        warm_start.load_adapter_weights(adapted, plan.init_adapter, plan.adapter)
    layer_sharding.place_model(adapted, plan, group)
    return adapted, loaded.tokenizer, autocast


def _steps(plan: TrainingArgs, rows: list[PackedRow]) -> list[OptimizerStep]:
    return batch_schedule.build_schedule(
        rows, epochs=plan.epochs, answers=plan.batch_size, tokens=plan.profile.train_batch_tokens, seed=plan.seed
    )

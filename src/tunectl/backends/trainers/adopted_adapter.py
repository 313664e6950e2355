"""Use an adapter that was trained elsewhere as the result of a training without steps: checked, validated, and stored like any other."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tunectl.backends.modeling import (
    batching,
    capability_probe,
    peft_adapter,
    training_checkpoint,
    training_run,
    warm_start,
)
from tunectl.backends.trainers import sft_trainer, trainer_loop
from tunectl.chat import model_spec
from tunectl.training.prefix_sharing import PackedRow, one_answer_per_row
from tunectl.training.protocols import LogPoint, TrainResult
from tunectl.training.train_args import TrainingArgs

RECORD = "federated.json"
"""Who took part in a federation; stored beside the adapter."""


class AdoptedAdapter:
    """A ``training.protocols.Trainer`` that stores the finished adapter in ``folder`` as its result instead of training."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

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
        """Check and validate the adapter, store it in ``out``, and return the result; its ``first_loss`` is that of the base model.

        Raises  ArtifactError where there is none, or it belongs to another base model; UsageError where its layers, rank or scaling differ from ``plan``.
        """
        started = time.perf_counter()
        if (self._folder / model_spec.NAME).is_file():
            model_spec.check_base_matches(self._folder, model)
        fresh, _, autocast = sft_trainer.load_with_adapter(replace(plan, init_adapter=None), model)
        capabilities = capability_probe.probe(fresh, train, autocast=autocast)
        rows = list(validation) if capabilities.shared_prompts else one_answer_per_row(validation)
        route = batching.forward_path(fresh, plain_head=capabilities.plain_head, autocast=autocast)
        run = training_run.TrainingRun(plan, [], [], rows, route, training_checkpoint.TrainerState())
        before = run.validate(fresh)
        warm_start.load_adapter_weights(fresh, self._folder, plan.adapter, setting="sft.adapter")
        loss = run.validate(fresh)
        weights = {name: value.clone() for name, value in peft_adapter.trainable_state(fresh).items()}
        peft_adapter.save_adapter(fresh, weights, out, model_spec.load(model))
        if (self._folder / RECORD).is_file():
            shutil.copyfile(self._folder / RECORD, out / RECORD)
        return TrainResult(
            steps=0,
            planned_steps=0,
            best_step=0,
            best_loss=loss,
            first_loss=before,
            tokens=0,
            tokens_apart=0,
            seconds=time.perf_counter() - started,
            trainable=trainer_loop.count_trainable(fresh),
            shared_prompts=capabilities.shared_prompts,
            history=(LogPoint(0, 1, None, loss, 0.0, 0.0),),
        )

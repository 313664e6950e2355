"""Train reward models through TRL's ``RewardTrainer``: its loop, optimizers, schedules and trackers, with our rows.

The loss of a step is the mean over its pairs, independent of the micro-batches, and equals TRL's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunectl.backends.modeling import (
    layer_sharding,
    peft_adapter,
    reward_forward,
    reward_scorer,
    training_checkpoint,
    training_run,
)
from tunectl.backends.modeling.process_group import SINGLE, ProcessGroup
from tunectl.backends.trainers import trainer_loop
from tunectl.chat import model_spec
from tunectl.core import logging_setup
from tunectl.training import batch_schedule
from tunectl.training.batch_schedule import OptimizerStep
from tunectl.training.protocols import TrainResult
from tunectl.training.reward.pair_batches import PromptGroup, split_answers
from tunectl.training.reward.reward_args import RewardArgs

_log = logging_setup.get_logger(__name__)


@dataclass(kw_only=True)
class RewardTrainingRun(training_run.TrainingRun):
    """State of one training of a reward model in this process; its losses are over pairs of answers."""

    bundles: list[PromptGroup]
    held_out: list[PromptGroup]
    how: reward_forward.RewardRoute
    center_weight: float | None

    def learn(self, step: OptimizerStep, backward: Any) -> float:
        """Run forward and backward over one step; return the mean loss per pair (nats), margins and centering included."""
        pairs = sum(len(self.bundles[number].pairs) for group in step.batches for number in group)
        batches = self.rank_batches(step)
        total, padding = 0.0, self.count_padding(len(batches))
        for group in batches:
            some = [self.bundles[number] for number in group]
            loss = reward_forward.loss_of(self.how, some, center_weight=self.center_weight) / pairs
            backward(loss)
            total += float(loss.detach())
        for _ in range(padding):
            backward(reward_forward.loss_of(self.how, self.bundles[:1], center_weight=None) * 0.0)
        return self.group.sum(total)[0]

    @property
    def batchables(self) -> Sequence[PromptGroup]:
        """The training items, by index: ``OptimizerStep.batches`` holds positions in this list.

        For a reward model an item is one prompt group.
        """
        return self.bundles

    def validate(self, model: Any) -> float:
        """Return the mean log-loss (nats) per held-out pair, without margins and centering."""
        model.eval()
        total = 0.0
        with training_run.disable_gradients(self):
            batches = self.rank_validation(self.held_out)
            padding = self.count_padding(len(batches))
            for group in batches:
                some = [self.held_out[number] for number in group]
                total += float(reward_forward.loss_of(self.how, some, center_weight=None))
            for _ in range(padding):
                reward_forward.loss_of(self.how, self.held_out[:1], center_weight=None)
        model.train()
        return self.group.sum(total)[0] / sum(len(bundle.pairs) for bundle in self.held_out)

    def read(self, step: OptimizerStep) -> tuple[int, int]:
        """Return the number of tokens of a step as packed, and as it would be if both answers of a pair had their own prompt."""
        some = [self.bundles[number] for group in step.batches for number in group]
        return sum(bundle.tokens for bundle in some), sum(bundle.unshared_tokens for bundle in some)


class RewardModelTrainer:
    """Trains reward models with TRL (a ``training.reward.reward_args.RewardTrainer``)."""

    def __init__(self, group: ProcessGroup = SINGLE) -> None:
        """``group`` is the processes that train together; every one of them makes the same calls."""
        self._group = group

    def fit(
        self,
        plan: RewardArgs,
        *,
        model: Path,
        sft: Path,
        train: Sequence[PromptGroup],
        validation: Sequence[PromptGroup],
        out: Path,
        work: Path,
    ) -> TrainResult:
        """Train one reward model on pairs of answers, write the weights of the best validation to ``out``, and return the result.

        Raises  UsageError when the loss is NaN or infinite (with the step and the last good loss), a LoRA target module does not
                exist, or transformers has no sequence classifier of this architecture; InfrastructureError when memory or disk do
                not suffice, or after Ctrl-C; MissingExtraError.
        """
        with trainer_loop.oom_to_error(plan.fit):
            return _fit(plan, (model, sft), list(train), list(validation), out, work, self._group)

    def rewards(
        self, plan: RewardArgs, *, model: Path, sft: Path, members: Sequence[Path], bundles: Sequence[PromptGroup]
    ) -> list[list[list[float]]]:
        with trainer_loop.oom_to_error(plan.fit):
            reader = reward_scorer.EnsembleReader(model, sft, members, plan.fit.profile)
            separated = list(bundles) if reader.supports_packing(bundles) else split_answers(bundles)
            result = reader.read([row for bundle in separated for row in bundle.rows], "rewards of held-out pairs")
            reader.close()
        cut: list[list[list[float]]] = []
        for raw in result:
            rest = iter(raw)
            cut.append([[next(rest) for _ in bundle.branches] for bundle in separated])
        return cut


def _fit(
    plan: RewardArgs,
    model: tuple[Path, Path],
    train: list[PromptGroup],
    validation: list[PromptGroup],
    out: Path,
    work: Path,
    group: ProcessGroup,
) -> TrainResult:
    loaded = reward_forward.build(*model, plan.fit.profile, seed=plan.fit.seed, device="cpu")
    peft_model, autocast = trainer_loop.wrap_with_adapter(plan.fit, loaded.model, trainer_loop.REWARD)
    layer_sharding.place_model(peft_model, plan.fit, group)
    longest = max(row.length for bundle in (*train, *validation) for row in bundle.rows)
    trainer_loop.require_memory_and_disk(plan.fit, peft_model, longest, work, ranks=group.local_world_size)
    route = reward_forward.route_of(peft_model, autocast=autocast)
    shared = plan.fit.prefix_sharing and reward_forward.supports_side_by_side(route, train)
    if plan.fit.prefix_sharing and not shared:
        _log.warning("this model's attention cannot keep answers of one prompt apart: each is read with its own prompt")
        train, validation = split_answers(train), split_answers(validation)
    run = RewardTrainingRun(
        plan.fit,
        [],
        _steps(plan, train),
        [],
        route.route,
        training_checkpoint.TrainerState(),
        bundles=train,
        held_out=validation,
        how=route,
        center_weight=plan.center_rewards_coefficient,
        group=group,
    )
    steps = trainer_loop.train(run, peft_model, loaded.tokenizer, work, trainer_loop.REWARD)
    if run.group.first:
        peft_adapter.save_adapter(peft_model, run.state.best, out, model_spec.load(model[0]))
    return trainer_loop.to_result(run, steps, trainer_loop.count_trainable(peft_model), shared=shared)


def _steps(plan: RewardArgs, train: list[PromptGroup]) -> list[OptimizerStep]:
    fit = plan.fit
    return batch_schedule.build_schedule(
        train, epochs=fit.epochs, answers=fit.batch_size, tokens=fit.profile.train_batch_tokens, seed=fit.seed
    )

"""Fit reward models through TRL's ``RewardTrainer``: its loop, optimisers, schedules and trackers, with our rows.

The loss of a step is the mean over its pairs, whatever the cut into micro-batches, and equals TRL's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunectl.backends import fit_run, fit_state, hf_reward, torch_reward, trl_loop
from tunectl.chat import contract
from tunectl.core import log
from tunectl.core.lazy import need
from tunectl.training import schedule
from tunectl.training.comparisons import Bundle, separate
from tunectl.training.reward_trainer import RewardPlan
from tunectl.training.schedule import Step
from tunectl.training.trainer import Fitted

_log = log.get(__name__)


@dataclass(kw_only=True)
class RewardRun(fit_run.FitRun):
    """A fit whose losses are those of pairs."""

    bundles: list[Bundle]
    held_out: list[Bundle]
    how: torch_reward.RewardRoute
    centring: float | None

    def learn(self, step: Step, backward: Any) -> float:
        """Forward and backward over one step; its mean loss a pair (nats), margins and centring included."""
        groups = [[self.bundles[number] for number in group] for group in step.batches]
        pairs = sum(len(bundle.duels) for group in groups for bundle in group)
        total = 0.0
        for group in groups:
            loss = torch_reward.loss_of(self.how, group, centring=self.centring) / pairs
            backward(loss)
            total += float(loss.detach())
        return total

    def validate(self, model: Any) -> float:
        """Log-loss a pair (nats) of the held-out pairs, without margins and centring."""
        torch = need("torch", extra="train")
        model.eval()
        total = 0.0
        with torch.inference_mode():
            tokens = self.plan.profile.train_tokens
            for group in schedule.batches(self.held_out, range(len(self.held_out)), tokens):
                some = [self.held_out[number] for number in group]
                total += float(torch_reward.loss_of(self.how, some, centring=None))
        model.train()
        return total / sum(len(bundle.duels) for bundle in self.held_out)

    def read(self, step: Step) -> tuple[int, int]:
        """Tokens of one step, and the same had both answers of every pair been read with a prompt of their own."""
        some = [self.bundles[number] for group in step.batches for number in group]
        return sum(bundle.tokens for bundle in some), sum(bundle.apart for bundle in some)


class TrlRewardTrainer:
    """The trainer of the product; see ``training.reward_trainer.RewardTrainer``."""

    def fit(
        self,
        plan: RewardPlan,
        *,
        model: Path,
        sft: Path,
        train: Sequence[Bundle],
        validation: Sequence[Bundle],
        out: Path,
        work: Path,
    ) -> Fitted:
        """See ``training.reward_trainer.RewardTrainer.fit``.

        Raises  UsageError when the loss is no number (names the step and the last good loss), a target does not exist, or the
                model has no form with one output; EnvironmentFailure when memory or disk do not suffice, or after Ctrl-C;
                MissingExtra.
        """
        with trl_loop.memory_in_words(plan.fit):
            return _fit(plan, (model, sft), list(train), list(validation), out, work)

    def rewards(
        self, plan: RewardPlan, *, model: Path, sft: Path, members: Sequence[Path], bundles: Sequence[Bundle]
    ) -> list[list[list[float]]]:
        """See ``training.reward_trainer.RewardTrainer.rewards``."""
        with trl_loop.memory_in_words(plan.fit):
            reader = hf_reward.Reader(model, sft, members, plan.fit.profile)
            whole = list(bundles) if reader.keeps_apart(bundles) else separate(bundles)
            found = reader.read([row for bundle in whole for row in bundle.rows], "rewards of held-out pairs")
            reader.close()
        cut: list[list[list[float]]] = []
        for raw in found:
            rest = iter(raw)
            cut.append([[next(rest) for _ in bundle.branches] for bundle in whole])
        return cut


def _fit(
    plan: RewardPlan,
    model: tuple[Path, Path],
    train: list[Bundle],
    validation: list[Bundle],
    out: Path,
    work: Path,
) -> Fitted:
    trl_loop.prepare_trackers(plan.fit, work)
    loaded = torch_reward.build(*model, plan.fit.profile, seed=plan.fit.seed)
    peft_model, autocast = trl_loop.adapted(plan.fit, loaded.model, trl_loop.REWARD)
    longest = max(row.length for bundle in (*train, *validation) for row in bundle.rows)
    trl_loop.refuse_too_big(plan.fit, peft_model, longest, work)
    how = torch_reward.route_of(peft_model, autocast=autocast)
    shared = plan.fit.share_prompts and torch_reward.keeps_apart(how, train)
    if plan.fit.share_prompts and not shared:
        _log.warning("this model's attention cannot keep answers of one prompt apart: each is read with its own prompt")
        train, validation = separate(train), separate(validation)
    run = RewardRun(
        plan.fit,
        [],
        _steps(plan, train),
        [],
        how.route,
        fit_state.FitState(),
        bundles=train,
        held_out=validation,
        how=how,
        centring=plan.centring,
    )
    steps = trl_loop.train(run, peft_model, loaded.tokenizer, work, trl_loop.REWARD)
    trl_loop.save(peft_model, run.state.best, out, contract.load(model[0]))
    return trl_loop.fitted(run, steps, trl_loop.trainable(peft_model), shared=shared)


def _steps(plan: RewardPlan, train: list[Bundle]) -> list[Step]:
    fit = plan.fit
    return schedule.plan(
        train, epochs=fit.epochs, answers=fit.batch_answers, tokens=fit.profile.train_tokens, seed=fit.seed
    )

"""Validate a policy during training: greedy answers to the same validation inputs, scored, measured and kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct, structs

from tunectl.backends.modeling import batching, logprobs, peft_adapter
from tunectl.backends.modeling.process_group import SINGLE, ProcessGroup
from tunectl.backends.trainers.rl_checkpoint import RlTrainerState
from tunectl.backends.trainers.rollout_generation import CompletionGenerator
from tunectl.chat.loss_mask import TokenSpan
from tunectl.core import logging_setup
from tunectl.core.optional import import_optional
from tunectl.training import batch_schedule
from tunectl.training.prefix_sharing import PackedRow
from tunectl.training.rl import policy_validation, rollout_order
from tunectl.training.rl.rl_types import (
    Completion,
    Prompt,
    RewardBreakdown,
    RewardFunctions,
    RlArgs,
    Sample,
    ValidationPoint,
)

_log = logging_setup.get_logger(__name__)
HeldOut = Callable[[], tuple[float, float | None]]
"""Loss of the method on held-out judgments, and the share of pairs that are ranked right; None where there are no pairs."""


class ValidationDecision(Struct, frozen=True):
    """Result of a validation that the first rank sends to the others, which follow it."""

    point: ValidationPoint
    best: bool
    """Whether these weights are the best so far."""
    stopped: str | None
    """Why to stop."""


@dataclass
class PolicyModel:
    """The peft model of a policy training, with its generator, its forward path and the weights that it started from."""

    model: Any
    writer: CompletionGenerator
    route: batching.ForwardPath
    start: dict[str, Any]
    """Trained weights of sft: the reference."""
    tokens: int
    """Most tokens of one pass, padding included."""
    shared: bool
    """Whether answers of one prompt may be in one row."""

    @contextmanager
    def as_sft(self) -> Iterator[None]:
        """Give the model the weights of the SFT adapter while the block runs."""
        torch = import_optional("torch", extra="train")
        every = dict(self.model.named_parameters())  # by name: TRL may have frozen them for the moment
        own = {name: every[name].detach().clone() for name in self.start}
        with torch.no_grad():
            for name, value in self.start.items():
                every[name].copy_(value)
            try:
                yield
            finally:
                for name, value in own.items():
                    every[name].copy_(value)

    def likelihoods(self, rows: Sequence[PackedRow], *, temperature: float = 1.0) -> list[Any]:
        """Return the log-probabilities (nats) of the tokens of each answer, row by row; one float32 tensor (tokens,) per answer, no gradients.

        Logits are divided by ``temperature``.
        """
        torch = import_optional("torch", extra="train")
        with torch.no_grad():
            return self._of_answers(
                rows, lambda batch: logprobs.token_logps(self.route, batch, temperature=temperature)
            )

    def compute_ratios_and_kl(self, rows: Sequence[PackedRow]) -> tuple[list[float], list[float]]:
        """Return two lists, one value per answer of ``rows``, in nats: the log-ratio of policy to SFT model, and their KL divergence summed over its tokens."""
        torch = import_optional("torch", extra="train")

        def read(batch: Any) -> Any:
            return torch.stack(logprobs.kl_between(self.route, batch, self.as_sft), dim=1)

        sums = [tokens.sum(dim=0).tolist() for tokens in self._of_answers(rows, read)]
        return [ratio for ratio, _ in sums], [kl for _, kl in sums]

    def _of_answers(self, rows: Sequence[PackedRow], compute: Callable[[Any], Any]) -> list[Any]:
        """Return the values of ``compute`` for every token of a batch, split by answer, in the order of ``rows``."""
        result: dict[int, list[Any]] = {}
        for group in batch_schedule.token_batches(rows, range(len(rows)), self.tokens):
            some = [rows[number] for number in group]
            sizes = [[len(branch.ids) for branch in row.branches] for row in some]
            parts = iter(compute(self.route.batch(some)).split([size for row in sizes for size in row]))
            for number, row in zip(group, sizes, strict=True):
                result[number] = [next(parts) for _ in row]
        return [answer for number in range(len(rows)) for answer in result[number]]


def token_logprobs(policy: PolicyModel, rows: Sequence[PackedRow], width: int, temperature: float) -> Any:
    """Return the token log-probabilities (nats) of every answer of ``rows``, (answers, width), 0 in the padding; with gradients.

    Logits are divided by ``temperature``.
    """
    torch = import_optional("torch", extra="train")
    values = logprobs.answer_logps(policy.route, rows, temperature=temperature).values
    return torch.nn.functional.pad(values, (0, width - values.shape[1]))


def row_of(prompt: Prompt, answers: Sequence[Sequence[int]]) -> PackedRow:
    """Return a row with one prompt and several answers to it; all tokens of the answers are trained on, none of the prompt."""
    span = TokenSpan(list(prompt.ids), [False] * len(prompt.ids))
    return PackedRow(span, tuple(TokenSpan(list(ids), [True] * len(ids)) for ids in answers), 1.0)


def run_validation(
    plan: RlArgs,
    policy: PolicyModel,
    judges: RewardFunctions,
    prompts: Sequence[Prompt],
    state: RlTrainerState,
    step: int,
    held_out: HeldOut | None = None,
    group: ProcessGroup = SINGLE,
) -> ValidationPoint:
    """Answer ``prompts`` greedily, compare with the first validation, and decide on best weights and stopping; return the result.

    Stores samples and the best weights in ``state``. ``held_out`` measures validation judgments, where training is on judgments.
    Each rank of ``group`` answers its share of the prompts; the first one decides, and the others follow it.
    Raises  UsageError where every answer was cut.
    """
    started = time.monotonic()
    settings = plan.settings
    answers, ratios, kl = _answer(policy, prompts, settings.max_new_tokens, group)
    rewards = _score(plan, judges, prompts, answers, ratios)
    judgment = (0.0, None) if held_out is None else held_out()
    decision = b""
    if group.first:
        now = policy_validation.measure_validation(step, prompts, answers, rewards, kl, judges.measure)
        if state.first is None:
            state.first = now
        point = policy_validation.compare_with_start(now, state.first, judges.measure, settings.validation, plan.seed)
        if held_out is not None:
            point = structs.replace(point, held_out_loss=judgment[0], held_out_accuracy=judgment[1])
        best = policy_validation.best_checkpoint([*state.points, point]) is point
        first_point = state.points[0] if state.points else point
        stopped = policy_validation.detect_reward_hacking(point, first_point, judges.measure.name, settings.validation)
        state.samples += _samples(step, prompts, answers, rewards, settings.validation.samples)
        decision = msgspec.msgpack.encode(ValidationDecision(point, best, stopped))
    decided = msgspec.msgpack.decode(group.gather_bytes(decision)[0], type=ValidationDecision)
    point = decided.point
    state.points.append(point)
    state.stopped = decided.stopped
    if decided.best:
        state.best_step = step
        state.best = {name: value.clone() for name, value in peft_adapter.trainable_state(policy.model).items()}
    state.seconds["validation"] = state.seconds.get("validation", 0.0) + time.monotonic() - started
    _log.info(
        "align: step %d, reward %.3f, %s %.1f, KL %.2f, %.1f tokens an answer",
        step,
        point.reward,
        judges.measure.name,
        point.metric,
        point.kl,
        point.length,
    )
    return point


def _answer(
    policy: PolicyModel, prompts: Sequence[Prompt], limit: int, group: ProcessGroup
) -> tuple[list[Completion], list[float], list[float]]:
    """Return greedy answers, their log-ratios to sft, and their KL (nats), in the order of ``prompts``."""
    lengths = [len(prompt.ids) for prompt in prompts]
    indices = rollout_order.distribute_prompts(lengths, rank=group.rank, world_size=group.world_size)
    lines = policy.writer.generate_greedy([prompts[index] for index in indices], limit)
    own = [policy.writer.to_completion(line) for line in lines]
    ratios, kl = policy.compute_ratios_and_kl(
        [row_of(prompts[index], [answer.ids]) for index, answer in zip(indices, own, strict=True)]
    )
    values = {index: value for index, *value in zip(indices, own, ratios, kl, strict=True)}
    merged = group.merge_by_index(values, tuple[Completion, float, float])
    return [answer for answer, _, _ in merged], [ratio for _, ratio, _ in merged], [value for _, _, value in merged]


def _score(
    plan: RlArgs,
    judges: RewardFunctions,
    prompts: Sequence[Prompt],
    answers: Sequence[Completion],
    ratios: Sequence[float],
) -> list[RewardBreakdown]:
    """Score with the declared rewards; where there are none, with the method's own: beta times the log-ratio to sft."""
    if judges.rewards is not None:
        return judges.rewards.score(prompts, answers, fixed=True)
    return [
        RewardBreakdown(plan.settings.beta * ratio if answer.finished else math.nan, {})
        for answer, ratio in zip(answers, ratios, strict=True)
    ]


def _samples(
    step: int,
    prompts: Sequence[Prompt],
    answers: Sequence[Completion],
    rewards: Sequence[RewardBreakdown],
    count: int,
) -> list[Sample]:
    return [
        Sample(
            step=step,
            id=prompt.id,
            prompt=prompt.last_message,
            answer=answer.text,
            reward=None if math.isnan(breakdown.total) else breakdown.total,
            parts=dict(breakdown.parts),
            references=list(prompt.references),
        )
        for prompt, answer, breakdown in list(zip(prompts, answers, rewards, strict=True))[:count]
    ]

"""State of one step of training on rewards, as it passes through TRL's trainer: the answers, their rewards and log-probabilities."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tunectl.backends.modeling.decoding import GenerationState
from tunectl.backends.modeling.process_group import SINGLE, ProcessGroup
from tunectl.backends.trainers import rl_validation
from tunectl.backends.trainers.rl_checkpoint import RlTrainerState
from tunectl.backends.trainers.rl_validation import PolicyModel, row_of
from tunectl.config.schema.align import Grpo, Rloo
from tunectl.config.schema.evaluate import Sampling
from tunectl.core.errors import ArtifactError, UsageError
from tunectl.core.optional import import_optional
from tunectl.training import batch_schedule
from tunectl.training.prefix_sharing import PackedRow
from tunectl.training.rl import rollout_order
from tunectl.training.rl.policy_validation import all_truncated
from tunectl.training.rl.rl_types import (
    Completion,
    PolicyData,
    Prompt,
    RewardBreakdown,
    RewardFunctions,
    RlArgs,
    StepMetrics,
    ValidationPoint,
)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Rows of one forward pass, and the indices (``indices``) of their answers in the step, row by row."""

    rows: tuple[PackedRow, ...]
    indices: tuple[int, ...]


@dataclass
class RolloutStep:
    """State of the current training step: its prompts, answers, rewards and log-probabilities."""

    number: int
    """Number of the step, from 1."""
    prompts: list[Prompt]
    """One prompt per answer: equal prompts are neighbors."""
    own: tuple[int, ...] = ()
    """Indices of the prompts of this rank, among the prompts of the step."""
    lines: list[GenerationState] = field(default_factory=list)
    """Answers of all ranks."""
    completions: list[Completion] = field(default_factory=list)
    rewards: list[RewardBreakdown] = field(default_factory=list)
    reference: Any = None
    """(answers, longest) float32: nats of each token under sft; 0 in padding and for answers that were cut."""
    part: MicroBatch | None = None
    """The micro-batch whose loss is computed now."""
    inputs: dict[str, Any] = field(default_factory=dict)
    """TRL's tensors of that part."""
    kl: list[float] = field(default_factory=list)
    """Log-ratio to sft of the answers that this rank read, nats."""
    mean_kl: float = 0.0
    """Mean KL of the answers that all ranks read."""


@dataclass
class PolicyRun:
    """State of one rloo or grpo training in this process, which the trainer and its callbacks share."""

    plan: RlArgs
    settings: Rloo | Grpo
    policy: PolicyModel
    data: PolicyData
    judges: RewardFunctions
    steps: list[tuple[int, ...]]
    """Numbers of the prompts of each step."""
    state: RlTrainerState
    turn: RolloutStep
    bar: Any = None
    stopped: bool = False
    """Ctrl-C was pressed: finish this step, save, stop."""
    clock: float = 0.0
    group: ProcessGroup = SINGLE
    """The processes that share this training."""

    def run_validation(self, step: int) -> ValidationPoint:
        """Validate with greedy answers after ``step`` steps; return the result."""
        return rl_validation.run_validation(
            self.plan, self.policy, self.judges, self.data.validation, self.state, step, group=self.group
        )

    def format_progress(self, point: StepMetrics) -> dict[str, str]:
        """Return the texts for the progress bar after a step, by label: seconds, reward, KL and length of the answers."""
        assert point.reward is not None
        assert point.kl is not None
        assert point.length is not None
        return {
            "s/step": f"{point.seconds:.1f}",
            "reward": f"{point.reward:.2f}",
            "KL": f"{point.kl:.2f}",
            "tokens": f"{point.length:.0f}",
        }

    @property
    def how(self) -> Sampling:
        """Sampling settings for the answers of a step."""
        values = self.settings
        return Sampling(
            method="sampling",
            max_new_tokens=values.max_new_tokens,
            temperature=values.temperature,
            top_p=values.top_p,
        )


def start(run: PolicyRun, numbers: Sequence[int], step: int) -> list[dict[str, str]]:
    """Set ``run.turn`` to the new step ``step`` on the prompts with the indices ``numbers``; return TRL's inputs, one per answer."""
    copies = run.settings.num_generations
    prompts = [run.data.prompts[number] for number in numbers]
    own = rollout_order.distribute_prompts(
        [len(prompt.ids) for prompt in prompts], rank=run.group.rank, world_size=run.group.world_size
    )
    run.turn = RolloutStep(step, [prompt for prompt in prompts for _ in range(copies)], tuple(own))
    return [{"prompt": prompt.text} for prompt in run.turn.prompts]


def generate_completions(run: PolicyRun) -> None:
    """Generate the answers of the step; each rank generates those to its own prompts."""
    turn, copies = run.turn, run.settings.num_generations
    prompts = [turn.prompts[prompt_index * copies] for prompt_index in turn.own]
    seeds = [rollout_order.prompt_seed(run.plan.seed, turn.number, prompt_index) for prompt_index in turn.own]
    lines = run.policy.writer.sample_completions(prompts, copies, run.how, seeds)
    groups = {prompt_index: lines[index * copies : (index + 1) * copies] for index, prompt_index in enumerate(turn.own)}
    add_completions(run, [line for group in run.group.merge_by_index(groups, list[GenerationState]) for line in group])


def add_completions(run: PolicyRun, lines: list[GenerationState]) -> None:
    """Store the answers of the step as completions for the reward functions.

    Raises  UsageError where all were cut at the token limit.
    """
    run.turn.lines = lines
    run.turn.completions = [run.policy.writer.to_completion(line) for line in lines]
    if not any(line.finished for line in lines):
        raise all_truncated(run.turn.number, len(lines), run.settings.max_new_tokens)


def score_answers(run: PolicyRun) -> list[float]:
    """Compute and return the reward of each answer; NaN for those that were cut at the limit.

    Raises  UsageError or ArtifactError where a reward is NaN or infinite, with step and answer.
    """
    turn = run.turn
    assert run.judges.rewards is not None
    try:
        turn.rewards = run.judges.rewards.score(turn.prompts, turn.completions)
    except ArtifactError as error:
        raise ArtifactError(f"align: step {turn.number}: {error.message}", hint=error.hint) from error
    for prompt, answer, breakdown in zip(turn.prompts, turn.completions, turn.rewards, strict=True):
        if answer.finished and not math.isfinite(breakdown.total):
            parts = ", ".join(f"{name} {value:g}" for name, value in breakdown.parts.items())
            raise UsageError(
                f"align: the reward of an answer of step {turn.number} is not a number ({parts}); to {prompt.last_message[:80]!r} it "
                f"was {answer.text[:80]!r}",
                hint="check the part of the reward that is nan or inf; rebuild a broken reward model with: tunectl repro --force --to reward",
            )
    return [breakdown.total for breakdown in turn.rewards]


def split_micro_batches(run: PolicyRun) -> list[MicroBatch]:
    """Return the finished answers to this rank's prompts, packed into micro-batches of at most hardware.train_batch_tokens."""
    turn, copies = run.turn, run.settings.num_generations
    rows: list[PackedRow] = []
    indexes: list[list[int]] = []
    for first in (prompt_index * copies for prompt_index in turn.own):
        ended = [index for index in range(first, first + copies) if turn.lines[index].finished]
        prompt = turn.prompts[first]
        sizes = [len(turn.lines[index].answer) for index in ended]
        for group in rollout_order.pack_answers(sizes, len(prompt.ids), shared=run.policy.shared):
            own = [ended[number] for number in group]
            rows.append(row_of(prompt, [turn.lines[index].answer for index in own]))
            indexes.append(own)
    return [
        MicroBatch(
            tuple(rows[number] for number in group), tuple(index for number in group for index in indexes[number])
        )
        for group in batch_schedule.token_batches(rows, range(len(rows)), run.policy.tokens)
    ]


def get_sampling_logprobs(run: PolicyRun, width: int) -> Any | None:
    """Return the log-probabilities (nats) with which the answers were sampled, (answers, width); None if the generator stored none."""
    torch = import_optional("torch", extra="train")
    lines = run.turn.lines
    if not all(line.nats for line in lines):
        return None
    padded = [line.nats + [0.0] * (width - len(line.nats)) for line in lines]
    return torch.tensor(padded, dtype=torch.float32, device=run.policy.route.device)


def compute_logprobs(run: PolicyRun, width: int) -> Any:
    """Return the log-probabilities (nats) of the step's answers under the current weights, (answers, width), 0 for cut answers; no gradients."""
    torch = import_optional("torch", extra="train")
    result = torch.zeros(len(run.turn.lines), width, device=run.policy.route.device)
    for part in split_micro_batches(run):
        nats = run.policy.likelihoods(part.rows, temperature=run.settings.temperature)
        for index, own in zip(part.indices, nats, strict=True):
            result[index, : len(own)] = own
    return run.group.sum_tensor(result)


def compute_reference_logprobs(run: PolicyRun, width: int) -> Any:
    """Return the log-probabilities (nats) of the step's answers under the SFT model, (answers, width); computed once per step."""
    if run.turn.reference is None:
        with run.state.time_block("reference"), run.policy.as_sft():
            run.turn.reference = compute_logprobs(run, width)
    return run.turn.reference


def loss_weight(settings: Rloo | Grpo, part: dict[str, Any], total: dict[str, Any]) -> float:
    """Return the weight of micro-batch ``part`` in the loss of the step ``total`` (TRL's inputs): its share of the answers or tokens."""
    if isinstance(settings, Grpo) and settings.loss == "dapo":
        return 1.0  # TRL divides by the tokens of the whole step already
    if isinstance(settings, Grpo) and settings.loss == "bnpo":
        return float(part["completion_mask"].sum() / total["completion_mask"].sum().clamp(min=1))
    return len(part["completion_mask"]) / len(total["completion_mask"])


def check_kl(run: PolicyRun) -> None:
    """Check that the last step's mean KL divergence of the policy from the SFT model is within ``align.max_kl``.

    Raises  UsageError with step and value, and what to lower.
    """
    total, count = run.group.sum(sum(run.turn.kl), len(run.turn.kl))
    result = run.turn.mean_kl = total / count
    if result <= run.settings.max_kl:
        return
    raise UsageError(
        f"align: KL explosion at step {run.turn.number}: the mean KL divergence of answers from sft is {result:.1f} nats; "
        f"the limit is {run.settings.max_kl:g} (align.max_kl)",
        hint=f"lower align.learning_rate (now {run.settings.learning_rate:g}) or raise align.beta (now {run.settings.beta:g})",
    )


def build_step_metrics(run: PolicyRun, loss: float, rate: float) -> StepMetrics:
    """Return the metrics of the step that has just ended; ``loss`` is its mean loss, ``rate`` the learning rate."""
    turn, copies = run.turn, run.settings.num_generations
    totals = [breakdown.total for breakdown in turn.rewards]
    groups = [
        [total for total in totals[first : first + copies] if math.isfinite(total)]
        for first in range(0, len(totals), copies)
    ]
    rewards = [total for group in groups for total in group]
    now = time.monotonic()
    seconds, run.clock = now - run.clock, now
    return StepMetrics(
        step=turn.number,
        loss=loss,
        learning_rate=rate,
        reward=sum(rewards) / len(rewards),
        reward_spread=sum(map(_spread, groups)) / len(groups),
        kl=turn.mean_kl,
        length=sum(len(line.answer) for line in turn.lines) / len(turn.lines),
        truncated=sum(not line.finished for line in turn.lines) / len(turn.lines),
        seconds=seconds,
        completions_crc32=f"{zlib.crc32(msgspec.msgpack.encode([line.answer for line in turn.lines])):08x}",
    )


def _spread(values: Sequence[float]) -> float:
    if not values:
        return 0.0
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))

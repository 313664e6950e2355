"""State of a training on judgments: rows, sft's log-probabilities of their answers, and the log-probabilities of each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunectl.backends.modeling.process_group import SINGLE, ProcessGroup
from tunectl.backends.trainers import rl_validation
from tunectl.backends.trainers.offline_logprobs import LogprobReader, PairLogprobs, References
from tunectl.backends.trainers.rl_checkpoint import RlTrainerState
from tunectl.backends.trainers.rl_validation import PolicyModel
from tunectl.config.schema.align import Dpo, Kto
from tunectl.core.optional import import_optional
from tunectl.training import batch_schedule
from tunectl.training.batch_schedule import OptimizerStep
from tunectl.training.prefix_sharing import PackedRow
from tunectl.training.rl import preference_batches
from tunectl.training.rl.preference_batches import LabeledCompletions
from tunectl.training.rl.rl_types import PolicyData, RewardFunctions, RlArgs, StepMetrics, ValidationPoint

TRAIN, HELD_OUT = "train", "held out"
MISMATCHED = {TRAIN: "strangers in training", HELD_OUT: "strangers held out"}
"""Answers to prompts that are not theirs, for the KL of kto."""


@dataclass
class OfflineRun:
    """State of one dpo or kto training in this process, which the trainer and its callbacks share."""

    plan: RlArgs
    settings: Dpo | Kto
    policy: PolicyModel
    data: PolicyData
    judges: RewardFunctions
    steps: list[OptimizerStep]
    reader: LogprobReader
    references: References
    mismatched: dict[str, list[PackedRow]]
    """By name as in ``MISMATCHED``; of training, those of one step after those of the other. Empty for dpo."""
    state: RlTrainerState
    trainer: Any = None
    bar: Any = None
    stopped: bool = False
    clock: float = 0.0
    group: ProcessGroup = SINGLE
    """The processes that share this training."""

    def run_validation(self, step: int) -> ValidationPoint:
        held_out = self.trainer.evaluate_held_out if self.data.held_out else None
        return rl_validation.run_validation(
            self.plan, self.policy, self.judges, self.data.validation, self.state, step, held_out, self.group
        )

    def format_progress(self, point: StepMetrics) -> dict[str, str]:
        """Return the texts for the progress bar after a step, by label: loss, and for dpo the reward margin."""
        return {"loss": f"{point.loss:.3f}", "margin": "-" if point.reward is None else f"{point.reward:.2f}"}

    def get_labeled_completions(self, name: str) -> Sequence[LabeledCompletions]:
        """Return the judged rows of the training data (``name`` is TRAIN) or of the held-out data (HELD_OUT)."""
        return self.data.judged if name == TRAIN else self.data.held_out

    def compute_logprobs(self, name: str, numbers: Sequence[int]) -> PairLogprobs:
        """Return log-probabilities under policy and SFT model of the rows with indices ``numbers`` in set ``name`` (TRAIN or HELD_OUT)."""
        some = [self.get_labeled_completions(name)[number] for number in numbers]
        result = self.reader.logprobs([item.row for item in some])
        return PairLogprobs(some, result, self.references.gather_padded(name, numbers, result.values.shape[1]))

    def compute_kl_logprobs(self, name: str, numbers: Sequence[int]) -> tuple[Any, Any]:
        """Return log-probabilities (nats) under (policy, SFT model) of the mismatched answers of rows ``numbers`` in set ``name``; (answers,) each."""
        torch = import_optional("torch", extra="train")
        indices = range(len(numbers))[self.group.rank :: self.group.world_size]
        rows = [self.mismatched[name][numbers[index]] for index in indices]
        lines = iter([float(line.sum()) for line in self.reader.compute_without_grad(rows)])
        sums = {index: [next(lines) for _ in row.branches] for index, row in zip(indices, rows, strict=True)}
        merged = self.group.merge_by_index(sums, list[float])
        policy = torch.tensor([nats for row in merged for nats in row], device=self.policy.route.device)
        return policy, self.references.gather_sums(MISMATCHED[name], numbers)

    def rank_batches(self, rows: Sequence[PackedRow], step: OptimizerStep | None = None) -> Sequence[Sequence[int]]:
        """Return the micro-batches of ``step``, or of all ``rows``, for this rank, each as indices of ``rows``."""
        if self.group.world_size == 1:
            return step.batches if step else batch_schedule.token_batches(rows, range(len(rows)), self.reader.tokens)
        order = row_indices(step) if step else range(len(rows))
        group = self.group
        return batch_schedule.rank_batches(
            rows, order, self.reader.tokens, rank=group.rank, world_size=group.world_size
        )


def prepare_run(
    plan: RlArgs,
    policy: PolicyModel,
    data: PolicyData,
    judges: RewardFunctions,
    steps: list[OptimizerStep],
    state: RlTrainerState,
    work: Path,
    group: ProcessGroup = SINGLE,
) -> OfflineRun:
    """Return the state of a dpo or kto training; log-probabilities under the SFT model are computed, or loaded if ``work`` has them."""
    settings = plan.settings
    assert isinstance(settings, Dpo | Kto)
    reader = LogprobReader(policy.route, policy.shared, policy.tokens)
    named = {TRAIN: [item.row for item in data.judged], HELD_OUT: [item.row for item in data.held_out]}
    mismatched: dict[str, list[PackedRow]] = {}
    if isinstance(settings, Kto):
        mismatched = {
            TRAIN: [row for step in steps for row in _pair_mismatched(named[TRAIN], row_indices(step))],
            HELD_OUT: _pair_held_out(named[HELD_OUT], named[TRAIN]),
        }
    every = named | {MISMATCHED[name]: rows for name, rows in mismatched.items()}
    with state.time_block("reference"):
        references = References.load_or_compute(every, reader, work, group)
    return OfflineRun(plan, settings, policy, data, judges, steps, reader, references, mismatched, state, group=group)


def _pair_mismatched(rows: Sequence[PackedRow], numbers: Sequence[int]) -> list[PackedRow]:
    """Return rows of one step with the answers of its other rows; a single row gets those of the next row of all."""
    if len(numbers) > 1:
        return preference_batches.kto_mismatched_pairs([rows[number] for number in numbers])
    (only,) = numbers
    return [preference_batches.kto_mismatched_pairs([rows[(only + 1) % len(rows)], rows[only]])[1]]


def _pair_held_out(rows: Sequence[PackedRow], train: Sequence[PackedRow]) -> list[PackedRow]:
    """Return held-out rows with the answers of one another; a single row gets those of a training row."""
    if len(rows) != 1:
        return preference_batches.kto_mismatched_pairs(rows)
    return preference_batches.kto_mismatched_pairs([*train[-1:], *rows])[1:]


def row_indices(step: OptimizerStep) -> list[int]:
    """Return the indices of the rows of a step, in their order."""
    return [number for group in step.batches for number in group]

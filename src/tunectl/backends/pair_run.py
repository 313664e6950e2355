"""A run of learning from judgements: rows, what sft says of their answers, and what is read of them at each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunectl.backends import policy_look
from tunectl.backends.pair_read import Reader, Reading, References
from tunectl.backends.policy_look import Policy
from tunectl.backends.policy_state import PolicyState
from tunectl.config.align import Dpo, Kto
from tunectl.core.lazy import need
from tunectl.training import pair_rows
from tunectl.training.pair_rows import Judged
from tunectl.training.policy import Judges, Look, Point, PolicyData, PolicyPlan
from tunectl.training.rows import Row
from tunectl.training.schedule import Step

TRAIN, HELD_OUT = "train", "held out"
STRANGERS = {TRAIN: "strangers in training", HELD_OUT: "strangers held out"}
"""Answers behind prompts that are not theirs, for the KL of kto."""


@dataclass
class PairRun:
    """What the trainer and its hooks share."""

    plan: PolicyPlan
    settings: Dpo | Kto
    policy: Policy
    data: PolicyData
    judges: Judges
    steps: list[Step]
    reader: Reader
    references: References
    strangers: dict[str, list[Row]]
    """By name as in ``STRANGERS``; of training, those of one step after those of the other. Empty for dpo."""
    state: PolicyState
    trainer: Any = None
    bar: Any = None
    stopped: bool = False
    clock: float = 0.0

    def look(self, step: int) -> Look:
        """See ``policy_look.look``."""
        held_out = self.trainer.held_out if self.data.held_out else None
        return policy_look.look(
            self.plan, self.policy, self.judges, self.data.watch, self.state, step, held_out=held_out
        )

    def figures(self, point: Point) -> dict[str, str]:
        """What the progress bar shows of a step."""
        return {"loss": f"{point.loss:.3f}", "margin": "-" if point.reward is None else f"{point.reward:.2f}"}

    def judged(self, name: str) -> Sequence[Judged]:
        """Of the training part, or of what is held out."""
        return self.data.judged if name == TRAIN else self.data.held_out

    def reading(self, name: str, numbers: Sequence[int]) -> Reading:
        """Read some rows of ``name``."""
        some = [self.judged(name)[number] for number in numbers]
        found = self.reader.nats([item.row for item in some])
        return Reading(some, found, self.references.padded(name, numbers, found.values.shape[1]))

    def apart(self, name: str, numbers: Sequence[int]) -> tuple[Any, Any]:
        """Nats of the strangers ``numbers`` under the policy and under sft, (answers,) each; no gradients."""
        torch = need("torch", extra="train")
        rows = [self.strangers[name][number] for number in numbers]
        own = torch.stack([line.sum() for line in self.reader.quietly(rows)])
        return own, self.references.sums(STRANGERS[name], numbers)


def prepared_run(
    plan: PolicyPlan,
    settings: Dpo | Kto,
    policy: Policy,
    data: PolicyData,
    judges: Judges,
    steps: list[Step],
    state: PolicyState,
    work: Path,
) -> PairRun:
    """The run, with what sft says of every answer."""
    reader = Reader(policy.route, policy.shared, policy.tokens)
    named = {TRAIN: [item.row for item in data.judged], HELD_OUT: [item.row for item in data.held_out]}
    strangers: dict[str, list[Row]] = {}
    if isinstance(settings, Kto):
        strangers = {
            TRAIN: [row for step in steps for row in _strangers(named[TRAIN], numbers_of(step))],
            HELD_OUT: pair_rows.mismatched(named[HELD_OUT]),
        }
    every = named | {STRANGERS[name]: rows for name, rows in strangers.items()}
    with state.timed("reference"):
        references = References.of(every, reader, work)
    return PairRun(plan, settings, policy, data, judges, steps, reader, references, strangers, state)


def _strangers(rows: Sequence[Row], numbers: Sequence[int]) -> list[Row]:
    """Rows of one step with the answers of its other rows; one that is alone gets those of the next row of all."""
    if len(numbers) > 1:
        return pair_rows.mismatched([rows[number] for number in numbers])
    (only,) = numbers
    return [pair_rows.mismatched([rows[(only + 1) % len(rows)], rows[only]])[1]]


def numbers_of(step: Step) -> list[int]:
    """The rows of a step, in the order in which they are read."""
    return [number for group in step.batches for number in group]

"""Batch schedule: the rows of each optimizer step, known before the first one.

Rows of similar length are batched together, so that there is little padding, and the steps are in random order. The whole schedule depends
only on the seed, so a run that resumes after a kill gets exactly the same steps.
"""

from __future__ import annotations

import random
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Protocol

WINDOW = 16
"""Steps whose rows are sorted by length together: enough for little padding, too few to order an epoch by length."""


class Batchable(Protocol):
    """A training row, or a group of rows that stay in one micro-batch, with the sizes that ``build_schedule`` needs."""

    @property
    def length(self) -> int:
        """Number of tokens that the item takes in a batch."""

    @property
    def branches(self) -> Sized:
        """The answers of the row, or of all rows of the group; ``build_schedule`` only counts them."""


@dataclass(frozen=True, slots=True)
class OptimizerStep:
    """One optimizer step: its micro-batches, each as indices of training rows, and its epoch (from 1)."""

    batches: tuple[tuple[int, ...], ...]
    epoch: int


def build_schedule(
    rows: Sequence[Batchable], *, epochs: float, answers: int, tokens: int, seed: int
) -> list[OptimizerStep]:
    """Return the optimizer steps of a whole training run, in order.

    A step holds ``answers`` answers; a micro-batch holds at most ``tokens`` tokens, padding included (a single row may be
    longer). ``epochs`` may be a fraction: the last epoch then takes that share of its steps.
    """
    steps: list[OptimizerStep] = []
    complete = int(epochs)
    for epoch in range(complete + (epochs > complete)):
        rng = random.Random(f"{seed}:{epoch}")  # noqa: S311  (no secret)
        epoch_steps = _epoch(rows, answers=answers, tokens=tokens, rng=rng, epoch=epoch + 1)
        share = 1.0 if epoch < complete else epochs - complete
        steps += epoch_steps[: max(1, round(len(epoch_steps) * share))]
    return steps


def _epoch(
    rows: Sequence[Batchable], *, answers: int, tokens: int, rng: random.Random, epoch: int
) -> list[OptimizerStep]:
    order = list(range(len(rows)))
    rng.shuffle(order)
    mean = sum(len(row.branches) for row in rows) / len(rows)
    window = max(1, round(WINDOW * answers / mean))
    steps = []
    for start in range(0, len(order), window):
        near = sorted(order[start : start + window], key=lambda number: rows[number].length)
        steps += [OptimizerStep(token_batches(rows, group, tokens), epoch) for group in _groups(rows, near, answers)]
    rng.shuffle(steps)
    return steps


def _groups(rows: Sequence[Batchable], order: Sequence[int], answers: int) -> list[list[int]]:
    """Split ``order`` into steps of about ``answers`` answers, all of nearly the same number."""
    total = sum(len(rows[number].branches) for number in order)
    count = max(1, round(total / answers))
    groups: list[list[int]] = [[]]
    previous = 0
    for number in order:
        if groups[-1] and len(groups) < count and previous >= total * len(groups) / count:
            groups.append([])
        groups[-1].append(number)
        previous += len(rows[number].branches)
    return groups


def token_batches(rows: Sequence[Batchable], order: Sequence[int], tokens: int) -> tuple[tuple[int, ...], ...]:
    """Return ``order`` (row numbers) split into micro-batches of at most ``tokens`` tokens, padding included, by increasing length."""
    cut: list[list[int]] = []
    for number in sorted(order, key=lambda number: rows[number].length):
        if cut and rows[number].length * (len(cut[-1]) + 1) <= tokens:  # rows rise in length: the newest is the widest
            cut[-1].append(number)
        else:
            cut.append([number])
    return tuple(tuple(batch) for batch in cut)


def rank_batches(
    rows: Sequence[Batchable], order: Sequence[int], tokens: int, *, rank: int, world_size: int
) -> tuple[tuple[int, ...], ...]:
    """Return the micro-batches of ``rank``, one of ``world_size`` processes: rows are sorted by length and dealt to the ranks in turn.

    Together the ranks read each row of ``order`` once; micro-batches have at most ``tokens`` tokens. A rank gets none where
    there are fewer rows than ranks.
    """
    rising = sorted(order, key=lambda number: (rows[number].length, number))
    return token_batches(rows, rising[rank::world_size], tokens)

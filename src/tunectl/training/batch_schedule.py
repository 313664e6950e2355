"""Batch schedule: which rows make which optimizer step, known before the first one.

Rows of similar length go together, so that little is padded, and the steps come in random order. The whole schedule follows
from the seed, so a run that goes on after a kill sees exactly what it would have seen.
"""

from __future__ import annotations

import random
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Protocol

WINDOW = 16
"""Steps whose rows are sorted by length together: enough to pad little, too few to order an epoch by length."""


class Batchable(Protocol):
    """What is dealt into batches: a row, or rows that belong together."""

    @property
    def length(self) -> int:
        """Tokens that it takes in a batch."""

    @property
    def branches(self) -> Sized:
        """Its answers."""


@dataclass(frozen=True, slots=True)
class OptimizerStep:
    """One optimizer step: micro-batches of row numbers, and the epoch (1-based) that it belongs to."""

    batches: tuple[tuple[int, ...], ...]
    epoch: int


def build_schedule(
    rows: Sequence[Batchable], *, epochs: float, answers: int, tokens: int, seed: int
) -> list[OptimizerStep]:
    """Return all steps of a training run.

    ``answers`` a step; ``tokens`` of one micro-batch at most, padding included (one row alone may be longer). A fraction of
    an epoch at the end takes that share of its steps.
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
    """Cut ``order`` into steps of about ``answers`` answers, all of nearly the same number."""
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
    """Cut ``order`` into micro-batches of at most ``tokens`` tokens, padding included, by rising length."""
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
    """Return the micro-batches that one of several ranks reads of ``order``: dealt in turn by rising length, so that all have equal work.

    Ranks together read each row once. A rank gets none where there are fewer rows than ranks.
    """
    rising = sorted(order, key=lambda number: (rows[number].length, number))
    return token_batches(rows, rising[rank::world_size], tokens)

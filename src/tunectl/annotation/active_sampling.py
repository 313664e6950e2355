"""Choose the next annotation task: mostly the most informative one, at declared shares a repeated one, or one with a known answer.

The most informative question is the one that a reward model is least sure of; without one the order is random. Every choice follows from the
seed, the person's name and how often they have answered, so that a restarted page shows what the old one showed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from statistics import NormalDist

from tunectl.core.hashing import hash_to_bytes
from tunectl.preferences.annotation_store import AnnotationEvent, AnnotationTask

NOISE = 1.0
"""Standard deviation of the annotators' own noise in a comparison, in standard deviations of the reward model's scores."""


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """Settings of ``annotate.queue`` with the seed: shares of repeated tasks and attention checks, and turns before an own task is repeated."""

    repeats: float
    attention: float
    gap: int
    seed: int


@dataclass(frozen=True, slots=True)
class NextTask:
    """The annotation task that an annotator gets next, which answer is on the left, and whether it is a repeat."""

    task: AnnotationTask
    left: int
    """Which answer stands on the left: 0 or 1."""
    repeat: bool


def preference_uncertainty(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Return the probability, 0 to 0.5, that a reward model orders two answers wrongly; each is (score, standard deviation).

    Scores that are close, and members of an ensemble that disagree, make it large. After Gleave and Irving (2022),
    "Uncertainty estimation for language reward models": asking where the model is unsure teaches it most.
    """
    apart = abs(first[0] - second[0])
    return NormalDist().cdf(-apart / hypot(first[1], second[1], NOISE))


def next_task(
    tasks: Sequence[AnnotationTask],
    annotations: Sequence[AnnotationEvent],
    annotator: str,
    turn: int,
    plan: QueuePolicy,
    *,
    uncertainties: Mapping[str, float] | None = None,
    on_screen: Collection[str] = (),
) -> NextTask | None:
    """Return the next task of ``annotator``, who has answered ``turn`` times, by the policy ``plan``; None when there is none left.

    ``annotations``: all valid annotations of all people. ``on_screen``: ids of tasks that other people see now; new tasks come before them.
    ``uncertainties``: task id to ``preference_uncertainty``; the most uncertain task comes first, tasks without a value last, in random order.
    """
    rng = random.Random(f"{plan.seed} {annotator} {turn}")  # noqa: S311  (no secret)
    kind, order, left = rng.random(), rng.random(), rng.randrange(2)
    own = [item.task for item in annotations if item.annotator == annotator]
    answered, last = set(own), own[-3:]
    unanswered = [item for item in tasks if not item.attention and item.id not in answered]
    if kind < plan.attention:
        checks = [item for item in tasks if item.attention and item.id not in answered]
        if checks:
            return NextTask(checks[int(order * len(checks))], left, repeat=False)
    elif kind < plan.attention + plan.repeats:
        again = _choose_repeat(tasks, annotations, annotator, plan.gap)
        if again is not None:
            return NextTask(again, left, repeat=True)
    others = {item.task for item in annotations if item.annotator != annotator} | set(on_screen)
    new = [item for item in unanswered if item.id not in others] or unanswered
    if not new:
        return None
    recent = {item.prompt for item in tasks if item.id in last}  # not the same input again at once
    doubts = uncertainties or {}
    best = max(
        new,
        key=lambda item: (
            item.prompt not in recent,
            doubts.get(item.id, -1.0),
            hash_to_bytes(f"{plan.seed} {item.id}"),
        ),
    )
    return NextTask(best, left, repeat=False)


def _choose_repeat(
    tasks: Sequence[AnnotationTask], annotations: Sequence[AnnotationEvent], annotator: str, gap: int
) -> AnnotationTask | None:
    """Return a question to ask again: of those with the fewest answers one that somebody else answered, else an old one of this annotator."""
    tasks_by_id = {item.id: item for item in tasks if not item.attention}
    own = [item.task for item in annotations if item.annotator == annotator]
    votes = Counter(item.task for item in annotations if item.task in tasks_by_id)
    times = Counter(own)
    of_others = [name for name in votes if name not in times]
    if of_others:
        return tasks_by_id[min(of_others, key=lambda name: (votes[name], name))]
    old = [name for name in own[: max(0, len(own) - gap)] if name in tasks_by_id and times[name] == 1]
    return tasks_by_id[old[0]] if old else None


def open_tasks(tasks: Sequence[AnnotationTask], annotations: Sequence[AnnotationEvent], annotator: str) -> int:
    """Return the number of tasks that ``annotator`` has not answered yet, attention checks not counted."""
    own = {item.task for item in annotations if item.annotator == annotator}
    return sum(not item.attention and item.id not in own for item in tasks)

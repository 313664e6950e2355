"""Which question comes next: mostly the most telling one, at declared shares one asked before, or one with a known answer.

Every choice follows from the seed, the person's name and how often they have answered, so that a restarted page shows what
the old one showed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from tunectl.preferences.store import Question, Said

Telling = Callable[[Question], float]
"""How much an answer to this question would tell, from 0: a reward model's uncertainty where there is one, else ``variety``."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The asking section as plain values."""

    repeats: float
    attention: float
    gap: int
    seed: int


@dataclass(frozen=True, slots=True)
class Next:
    """What is shown."""

    question: Question
    left: int
    """Which answer stands on the left: 0 or 1."""
    repeat: bool


def variety(question: Question) -> float:
    """1 - Jaccard similarity of the words of both answers: answers that say the same teach nothing."""
    first, second = (set(text.casefold().split()) for text in question.answers)
    return 1 - len(first & second) / len(first | second) if first | second else 0.0


def choose(
    questions: Sequence[Question],
    said: Sequence[Said],
    annotator: str,
    turn: int,
    plan: Plan,
    *,
    telling: Telling = variety,
    shown: Collection[str] = (),
) -> Next | None:
    """The next question of ``annotator``, who has answered ``turn`` times; None when nothing is left to ask.

    ``said`` is everything that counts, of everybody; ``shown`` are questions on other people's screens now, which are kept
    from being asked twice by chance.
    """
    dice = random.Random(f"{plan.seed} {annotator} {turn}")  # noqa: S311  (no secret)
    kind, order, left = dice.random(), dice.random(), dice.randrange(2)
    own = [one.question for one in said if one.annotator == annotator]
    fresh = [item for item in questions if not item.attention and item.id not in own]
    if kind < plan.attention:
        checks = [item for item in questions if item.attention and item.id not in own]
        if checks:
            return Next(checks[int(order * len(checks))], left, repeat=False)
    elif kind < plan.attention + plan.repeats:
        again = _again(questions, said, annotator, plan.gap)
        if again is not None:
            return Next(again, left, repeat=True)
    others = {one.question for one in said if one.annotator != annotator} | set(shown)
    new = [item for item in fresh if item.id not in others] or fresh
    if not new:
        return None
    recent = {item.prompt for item in questions if item.id in own[-3:]}  # not the same input again at once
    best = max(new, key=lambda item: (item.prompt not in recent, telling(item), item.id))
    return Next(best, left, repeat=False)


def _again(questions: Sequence[Question], said: Sequence[Said], annotator: str, gap: int) -> Question | None:
    """A question to ask again: of those that fewest people answered one that somebody else did, else an old one of one's own."""
    known = {item.id: item for item in questions if not item.attention}
    own = [one.question for one in said if one.annotator == annotator]
    votes = Counter(one.question for one in said if one.question in known)
    of_others = [name for name in votes if name not in own]
    if of_others:
        return known[min(of_others, key=lambda name: (votes[name], name))]
    times = Counter(own)
    old = [name for name in own[: max(0, len(own) - gap)] if name in known and times[name] == 1]
    return known[old[0]] if old else None


def left_to_ask(questions: Sequence[Question], said: Sequence[Said], annotator: str) -> int:
    """Questions that somebody has not answered yet, attention checks not counted."""
    own = {one.question for one in said if one.annotator == annotator}
    return sum(not item.attention and item.id not in own for item in questions)

"""Answers side by side for people to read: the worst, the lost and the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunectl.evaluation import measures
from tunectl.evaluation.entry import Entry
from tunectl.evaluation.items import Item
from tunectl.evaluation.results import Case
from tunectl.evaluation.scoring import Statistics


def chosen(
    items: Sequence[Item], entries: Mapping[str, Entry], tables: Mapping[str, Statistics], count: int
) -> list[Case]:
    """The worst, the lost and the best answers of the tuned model by sentence chrF, at most ``count`` of each."""
    if "tuned" not in entries or not count:
        return []
    own = [float(value) for value in measures.chrf(tables["tuned"]["chrf"])]
    other = [float(value) for value in measures.chrf(tables["base"]["chrf"])] if "base" in tables else None
    gains = [None if other is None else mine - other[place] for place, mine in enumerate(own)]
    order = sorted(range(len(items)), key=lambda place: (own[place], items[place].id))
    lost = sorted((place for place in order if (gains[place] or 0) < 0), key=lambda place: gains[place] or 0)
    picked = [("worst", place) for place in order[:count]]
    picked += [("lost", place) for place in lost[:count]]
    picked += [("best", place) for place in order[count:][-count:][::-1]]
    return [
        Case(
            id=items[place].id,
            input=items[place].question,
            references=list(items[place].references),
            answers={name: one.answers[place] for name, one in entries.items()},
            why=why,
            score=own[place],
            gain=gains[place],
        )
        for why, place in picked
    ]

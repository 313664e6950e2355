"""Answers side by side for people to read: the worst, the lost and the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunectl.evaluation import metrics
from tunectl.evaluation.items import Item
from tunectl.evaluation.results import Case
from tunectl.evaluation.scoring import Statistics
from tunectl.evaluation.system import SystemResult


def select_cases(
    items: Sequence[Item], entries: Mapping[str, SystemResult], tables: Mapping[str, Statistics], count: int
) -> list[Case]:
    """Return the worst, the lost and the best answers of the tuned model, and those that aligning changed most, by sentence chrF.

    At most ``count`` of each kind.
    """
    if "tuned" not in entries or not count:
        return []
    scores = {name: [float(value) for value in metrics.chrf(table["chrf"])] for name, table in tables.items()}

    def case(why: str, place: int, name: str, against: str) -> Case:
        score = scores[name][place]
        gain = score - scores[against][place] if against in scores else None
        answers = {name: one.answers[place] for name, one in entries.items()}
        item = items[place]
        return Case(item.id, item.question, list(item.references), answers, why, score, gain)

    order = sorted(range(len(items)), key=lambda place: (scores["tuned"][place], items[place].id))
    picked = [("worst", place) for place in order[:count]]
    picked += [("lost", place) for place in _select_regressions(scores, order, "tuned", "base")[:count]]
    picked += [("best", place) for place in order[count:][-count:][::-1]]
    found = [case(why, place, "tuned", "base") for why, place in picked]
    if "aligned" in scores:
        fallen = _select_regressions(scores, order, "aligned", "tuned")[:count]
        risen = _select_regressions(scores, order, "tuned", "aligned")[:count]
        found += [case("aligned_lost", place, "aligned", "tuned") for place in fallen]
        found += [case("aligned_won", place, "aligned", "tuned") for place in risen]
    return found


def _select_regressions(
    scores: Mapping[str, Sequence[float]], order: Sequence[int], name: str, against: str
) -> list[int]:
    """Return places where ``name`` did worse than ``against``, the largest fall first."""
    if against not in scores:
        return []
    falls = {place: scores[name][place] - scores[against][place] for place in order}
    return sorted((place for place in order if falls[place] < 0), key=lambda place: falls[place])

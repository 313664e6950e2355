"""Select answers for people to read side by side: the worst, the lost and the best."""

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
    """Return test inputs for people to read: the tuned model's worst and best answers, and those where the base did better.

    Where there is an aligned model, also those that alignment changed most. At most ``count`` of each kind, by sentence
    chrF. ``tables`` has the statistics of each metric, by system.
    """
    if "tuned" not in entries or not count:
        return []
    scores = {name: [float(value) for value in metrics.chrf(table["chrf"])] for name, table in tables.items()}

    def case(reason: str, index: int, name: str, against: str) -> Case:
        score = scores[name][index]
        gain = score - scores[against][index] if against in scores else None
        answers = {name: entry.answers[index] for name, entry in entries.items()}
        item = items[index]
        return Case(item.id, item.question, list(item.references), answers, reason, score, gain)

    order = sorted(range(len(items)), key=lambda index: (scores["tuned"][index], items[index].id))
    cases = [("worst", index) for index in order[:count]]
    cases += [("lost", index) for index in _select_regressions(scores, order, "tuned", "base")[:count]]
    cases += [("best", index) for index in order[count:][-count:][::-1]]
    result = [case(reason, index, "tuned", "base") for reason, index in cases]
    if "aligned" in scores:
        losses = _select_regressions(scores, order, "aligned", "tuned")[:count]
        wins = _select_regressions(scores, order, "tuned", "aligned")[:count]
        result += [case("aligned_lost", index, "aligned", "tuned") for index in losses]
        result += [case("aligned_won", index, "aligned", "tuned") for index in wins]
    return result


def _select_regressions(
    scores: Mapping[str, Sequence[float]], order: Sequence[int], name: str, against: str
) -> list[int]:
    """Return indices where ``name`` scored lower than ``against``, the largest fall first."""
    if against not in scores:
        return []
    falls = {index: scores[name][index] - scores[against][index] for index in order}
    return sorted((index for index in order if falls[index] < 0), key=lambda index: falls[index])

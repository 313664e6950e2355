"""Slot errors beyond the rate: which attributes fail, for inputs of which size, and the worst answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tunectl.evaluation import paired_comparison
from tunectl.evaluation.items import Item
from tunectl.evaluation.results import SlotCase, SlotCount, SlotPart, SlotReport
from tunectl.evaluation.scoring import Statistics
from tunectl.evaluation.slot_error import SlotMatch, SlotMatcher, match_answers
from tunectl.evaluation.system import SystemResult


def report(
    rules: SlotMatcher,
    items: Sequence[Item],
    entries: Mapping[str, SystemResult],
    tables: Mapping[str, Statistics],
    *,
    cut: paired_comparison.SliceSettings,
    worst: int,
) -> SlotReport:
    """Return the value of ``results.slots``; ``entries`` are in the order of the tables."""
    answers = {name: one.answers for name, one in entries.items()}
    found = {name: match_answers(rules, items, texts) for name, texts in answers.items()}
    sizes = [len(rules.attributes(item)) for item in items]
    return SlotReport(
        parts=_parts(rules, items, found),
        sizes=paired_comparison.by_number("attributes", sizes, items, tables, replace(cut, primary="slot_error")),
        cases=_cases(items, answers, found, worst),
    )


def _parts(rules: SlotMatcher, items: Sequence[Item], found: Mapping[str, Sequence[SlotMatch]]) -> list[SlotPart]:
    stated = Counter(name for item in items for name, _ in rules.attributes(item))
    return [
        SlotPart(name, stated[name], {system: _count(name, answers) for system, answers in found.items()})
        for name in rules.cfg.attributes
    ]


def _count(name: str, found: Sequence[SlotMatch]) -> SlotCount:
    def number(pick: str) -> int:
        return sum(pair[0] == name for one in found for pair in getattr(one, pick))

    return SlotCount(number("right"), number("missing"), number("wrong"), number("added"))


def _cases(
    items: Sequence[Item], answers: Mapping[str, Sequence[str]], found: Mapping[str, Sequence[SlotMatch]], count: int
) -> list[SlotCase]:
    last = next((name for name in ("aligned", "tuned", "model") if name in found), None)
    if last is None:
        return []
    errors = [one.errors for one in found[last]]
    order = sorted(range(len(items)), key=lambda place: (-errors[place], items[place].id))
    return [
        SlotCase(
            id=items[place].id,
            input=items[place].question,
            answers={name: texts[place] for name, texts in answers.items()},
            errors={name: describe_errors(one[place]) for name, one in found.items()},
        )
        for place in order[:count]
        if errors[place]
    ]


def describe_errors(found: SlotMatch) -> list[str]:
    """Return the errors of one answer as text."""
    return [
        *(f"{name} missing: {value}" for name, value in found.missing),
        *(f"{name} wrong: {said}, not {value}" for name, value, said in found.wrong),
        *(f"{name} added: {value}" for name, value in found.added),
    ]

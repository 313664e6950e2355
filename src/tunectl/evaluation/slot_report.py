"""Slot errors in detail: which attributes fail, for inputs of which size, and the worst answers."""

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
    """Return the slot errors of all systems (``entries``, in table order): by attribute, by number of attributes, and the ``worst`` answers."""
    answers = {name: entry.answers for name, entry in entries.items()}
    result = {name: match_answers(rules, items, texts) for name, texts in answers.items()}
    sizes = [len(rules.attributes(item)) for item in items]
    return SlotReport(
        parts=_parts(rules, items, result),
        sizes=paired_comparison.by_number("attributes", sizes, items, tables, replace(cut, primary="slot_error")),
        cases=_cases(items, answers, result, worst),
    )


def _parts(rules: SlotMatcher, items: Sequence[Item], matches: Mapping[str, Sequence[SlotMatch]]) -> list[SlotPart]:
    counts = Counter(name for item in items for name, _ in rules.attributes(item))
    return [
        SlotPart(name, counts[name], {system: _count(name, answers) for system, answers in matches.items()})
        for name in rules.cfg.attributes
    ]


def _count(name: str, match: Sequence[SlotMatch]) -> SlotCount:
    def number(pick: str) -> int:
        return sum(pair[0] == name for item in match for pair in getattr(item, pick))

    return SlotCount(number("right"), number("missing"), number("wrong"), number("added"))


def _cases(
    items: Sequence[Item], answers: Mapping[str, Sequence[str]], matches: Mapping[str, Sequence[SlotMatch]], count: int
) -> list[SlotCase]:
    last = next((name for name in ("aligned", "tuned", "model") if name in matches), None)
    if last is None:
        return []
    errors = [item.errors for item in matches[last]]
    order = sorted(range(len(items)), key=lambda index: (-errors[index], items[index].id))
    return [
        SlotCase(
            id=items[index].id,
            input=items[index].question,
            answers={name: texts[index] for name, texts in answers.items()},
            errors={name: describe_errors(item[index]) for name, item in matches.items()},
        )
        for index in order[:count]
        if errors[index]
    ]


def describe_errors(match: SlotMatch) -> list[str]:
    """Return the slot errors of one answer, one text each."""
    return [
        *(f"{name} missing: {value}" for name, value in match.missing),
        *(f"{name} wrong: {stated}, not {value}" for name, value, stated in match.wrong),
        *(f"{name} added: {value}" for name, value in match.added),
    ]

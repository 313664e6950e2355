"""Two models on the same file: every measure of both, and every difference on the same resamples."""

from __future__ import annotations

from dataclasses import replace

from msgspec import Struct

from tunectl.evaluation import compare, measures, pairwise, single
from tunectl.evaluation.entry import Entry
from tunectl.evaluation.results import AnswerRow, Difference, WinRate
from tunectl.evaluation.scorer import Tools
from tunectl.evaluation.single import Measured, Task
from tunectl.evaluation.win_rate import Counting

FIRST, SECOND = "model", "against"


class Paired(Struct, frozen=True):
    """What ``tunectl evaluate DATA --model A --against B --json`` prints."""

    model: Measured
    against: Measured
    differences: list[Difference]
    """Model minus against, a measure each, with paired bootstrap intervals by input."""
    win_rates: list[WinRate]
    """Model against the other by declared checks and by slot errors; those that are not declared say so."""


def differences(
    task: Task, entries: tuple[Entry, Entry], tools: Tools, close: float
) -> tuple[list[Difference], list[WinRate]]:
    """Paired differences of two models' answers to the same inputs, and win rates by what the answers hold."""
    first, second = replace(entries[0], name=FIRST), replace(entries[1], name=SECOND)
    tables = {one.name: single.statistics(task, one, tools) for one in (first, second)}
    found = compare.differences(tables, [(FIRST, SECOND)], single.plan(task))
    how = Counting(close, task.gate.resamples, task.gate.confidence, task.seed)
    match = pairwise.Match(task.items, first, second, tables)
    return found, [pairwise.by_checks(match, how), pairwise.by_slots(match, how)]


def rows(task: Task, entries: tuple[Entry, Entry]) -> list[AnswerRow]:
    """One line an input for ``answers.jsonl``, with both answers."""
    return [
        AnswerRow(item.id, item.question, list(item.references), item.fields, {FIRST: mine, SECOND: theirs})
        for item, mine, theirs in zip(task.items, entries[0].answers, entries[1].answers, strict=True)
    ]


def table(found: Paired) -> tuple[list[str], list[list[str]]]:
    """Columns and rows for a terminal: a measure a row, both models, the difference with its interval."""
    by_measure = {one.measure: one for one in found.differences}
    shown = []
    for name in measures.ordered(by_measure):
        one, measure = by_measure[name], measures.find(name)
        ends = "-" if one.low is None or one.high is None else f"{one.low:+.2f} to {one.high:+.2f}"
        mine, theirs = (scores[name].value for scores in (found.model.scores, found.against.scores))
        shown.append([measure.title, f"{mine:.2f}", f"{theirs:.2f}", f"{one.value:+.2f}", ends, measure.unit])
    return ["measure", FIRST, SECOND, "difference", f"{found.model.confidence:.0%} interval", "unit"], shown

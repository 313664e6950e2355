"""One model measured on one file of inputs and references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from tunectl.config.evaluate import Beams, Check, Gate, Greedy, Sampling
from tunectl.evaluation import compare, entry, measures, prompts, scoring, slots
from tunectl.evaluation import slot_report as slots_beyond
from tunectl.evaluation.entry import Asking
from tunectl.evaluation.generator import Generator
from tunectl.evaluation.items import Item
from tunectl.evaluation.prompts import ZERO_SHOT, Prompter, Shots
from tunectl.evaluation.results import AnswerRow, Cost, Score, SlotReport
from tunectl.evaluation.scorer import Tools


class Measured(Struct, frozen=True):
    """What ``tunectl evaluate DATA`` prints as JSON."""

    data: str
    model: str
    adapter: str | None
    inputs: int
    """Distinct inputs that were answered."""
    available: int
    references: int
    """Reference answers of those inputs."""
    skipped: dict[str, int]
    scores: dict[str, Score]
    """Measure name to value and interval; BLEU, chrF and ROUGE-L are 0 to 100."""
    cost: Cost
    decoding: dict[str, Any]
    confidence: float
    resamples: int
    bleu_signature: str
    slots: SlotReport | None = None
    """Slot errors by attribute and size; None where no rules are declared."""


@dataclass(frozen=True)
class Task:
    """What is asked and how it is measured."""

    items: Sequence[Item]
    how: Greedy | Beams | Sampling
    gate: Gate
    checks: Sequence[Check]
    references: int
    """Most references of an input whose likelihood is measured."""
    latency_inputs: int
    seed: int
    rules: slots.Rules | None
    """Of the slot error rate; None measures none."""
    worst: int
    """Answers with most slot errors that are shown."""
    small: int
    """Fewer inputs than this are too few to judge."""


def answered(task: Task, generator: Generator, prompter: Prompter) -> entry.Entry:
    """The model's answers to the inputs as they are, with the system text that it was trained with."""
    plain = prompts.ready(task.items, ZERO_SHOT, Shots([], None, task.seed), prompter, task.references)
    asking = Asking(task.how, task.seed, task.latency_inputs)
    return entry.answered("model", generator, plain, ZERO_SHOT, asking)


def scored(task: Task, one: entry.Entry, tools: Tools) -> dict[str, Score]:
    """Every measure with its interval; there is no training side here, so nothing is said about what was seen."""
    return compare.scores(statistics(task, one, tools), plan(task))


def statistics(task: Task, one: entry.Entry, tools: Tools) -> scoring.Statistics:
    """What the scores are made of, by measure."""
    found = scoring.measure(
        task.items,
        one.answers,
        one.replies,
        tools=tools,
        declared=task.checks,
        seen=frozenset(),
        rules=task.rules,
    )
    found.pop("seen")
    return found


def slot_report(task: Task, one: entry.Entry, tools: Tools) -> SlotReport | None:
    """Slot errors by attribute and by the number of attributes; None without rules."""
    if task.rules is None:
        return None
    cut = compare.Cut((), task.small, "slot_error", task.gate.resamples, task.gate.confidence, task.seed)
    tables = {one.name: statistics(task, one, tools)}
    return slots_beyond.report(task.rules, task.items, {one.name: one}, tables, cut=cut, worst=task.worst)


def slot_table(found: SlotReport) -> tuple[list[str], list[list[str]]]:
    """Columns and rows for a terminal: an attribute a row."""
    rows = []
    for part in found.parts:
        count = part.systems["model"]
        share = f"{100 * (count.missing + count.wrong) / part.stated:.1f} %" if part.stated else "-"
        rows.append([part.attribute, str(part.stated), share, str(count.missing), str(count.wrong), str(count.added)])
    return ["attribute", "inputs", "errors", "missing", "wrong", "added"], rows


def plan(task: Task) -> compare.Resampling:
    """The resamples that all models share."""
    return compare.resampling(
        [item.cluster for item in task.items],
        resamples=task.gate.resamples,
        confidence=task.gate.confidence,
        seed=task.seed,
    )


def rows(task: Task, one: entry.Entry) -> list[AnswerRow]:
    """One line an input for ``answers.jsonl``."""
    return [
        AnswerRow(item.id, item.question, list(item.references), item.fields, {one.name: text})
        for item, text in zip(task.items, one.answers, strict=True)
    ]


def table(found: Measured) -> tuple[list[str], list[list[str]]]:
    """Columns and rows for a terminal."""
    shown = []
    for name in measures.ordered(found.scores):
        score, measure = found.scores[name], measures.find(name)
        ends = "-" if score.low is None or score.high is None else f"{score.low:.2f} to {score.high:.2f}"
        shown.append([measure.title, f"{score.value:.2f}", ends, measure.unit])
    return ["measure", "value", f"{found.confidence:.0%} interval", "unit"], shown

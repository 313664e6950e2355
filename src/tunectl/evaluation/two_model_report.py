"""Two models on the same file: every measure of both, and every difference on the same resamples."""

from __future__ import annotations

from dataclasses import replace

from msgspec import Struct

from tunectl.evaluation import file_evaluation, metrics, paired_comparison, win_rates_by_judge
from tunectl.evaluation.file_evaluation import EvalTask, FileEvalResult
from tunectl.evaluation.metric_protocols import MetricBackends
from tunectl.evaluation.results import AnswerRow, MetricDifference, WinRate
from tunectl.evaluation.system import SystemResult
from tunectl.evaluation.win_rate import Counting

FIRST, SECOND = "model", "against"


class TwoModelReport(Struct, frozen=True):
    """What ``tunectl evaluate DATA --model A --against B --json`` prints."""

    model: FileEvalResult
    against: FileEvalResult
    differences: list[MetricDifference]
    """Model minus against, a measure each, with paired bootstrap intervals by input."""
    win_rates: list[WinRate]
    """Model against the other by declared checks and by slot errors; those that are not declared say so."""


def differences(
    task: EvalTask, entries: tuple[SystemResult, SystemResult], tools: MetricBackends, close: float
) -> tuple[list[MetricDifference], list[WinRate]]:
    """Return paired differences of two models' answers to the same inputs, and win rates by what the answers hold."""
    first, second = replace(entries[0], name=FIRST), replace(entries[1], name=SECOND)
    tables = {one.name: file_evaluation.statistics(task, one, tools) for one in (first, second)}
    found = paired_comparison.differences(tables, [(FIRST, SECOND)], file_evaluation.build_resampling(task))
    how = Counting(close, task.gate.resamples, task.gate.confidence, task.seed)
    match = win_rates_by_judge.AlignedPair(task.items, first, second, tables)
    return found, [win_rates_by_judge.by_checks(match, how), win_rates_by_judge.by_slots(match, how)]


def rows(task: EvalTask, entries: tuple[SystemResult, SystemResult]) -> list[AnswerRow]:
    """Return one line an input for ``answers.jsonl``, with both answers."""
    return [
        AnswerRow(item.id, item.question, list(item.references), item.fields, {FIRST: mine, SECOND: theirs})
        for item, mine, theirs in zip(task.items, entries[0].answers, entries[1].answers, strict=True)
    ]


def table(found: TwoModelReport) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows for a terminal: a measure a row, both models, the difference with its interval."""
    by_measure = {one.measure: one for one in found.differences}
    shown = []
    for name in metrics.sort_metrics(by_measure):
        one, measure = by_measure[name], metrics.get_metric(name)
        ends = "-" if one.low is None or one.high is None else f"{one.low:+.2f} to {one.high:+.2f}"
        mine, theirs = (scores[name].value for scores in (found.model.scores, found.against.scores))
        shown.append([measure.title, f"{mine:.2f}", f"{theirs:.2f}", f"{one.value:+.2f}", ends, measure.unit])
    return ["measure", FIRST, SECOND, "difference", f"{found.model.confidence:.0%} interval", "unit"], shown

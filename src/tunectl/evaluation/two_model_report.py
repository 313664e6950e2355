"""Compare two models on the same file: every metric of both, and every difference on the same resamples."""

from __future__ import annotations

from dataclasses import replace

from msgspec import Struct

from tunectl.evaluation import file_evaluation, metrics, paired_comparison, win_rates_by_judge
from tunectl.evaluation.file_evaluation import EvalTask, FileEvalResult
from tunectl.evaluation.protocols import MetricBackends
from tunectl.evaluation.results import AnswerRow, MetricDifference, WinRate
from tunectl.evaluation.system import SystemResult
from tunectl.evaluation.win_rate import WinRateSettings

FIRST, SECOND = "model", "against"


class TwoModelReport(Struct, frozen=True):
    """JSON output of ``tunectl evaluate DATA --model A --against B``: both models' scores, differences and win rates."""

    model: FileEvalResult
    against: FileEvalResult
    differences: list[MetricDifference]
    """Differences of model minus against, one per metric, with paired bootstrap intervals by input."""
    win_rates: list[WinRate]
    """Win rates of model against the other by declared checks and by slot errors; those that are not declared have a note."""


def differences(
    task: EvalTask, entries: tuple[SystemResult, SystemResult], tools: MetricBackends, close: float
) -> tuple[list[MetricDifference], list[WinRate]]:
    """Return (differences in every metric, win rates by checks and by slot errors) of the first model against the second.

    ``entries`` are both models' answers to the inputs of ``task``.

    ``close``: word counts that differ by at most this share of the longer one are about equal.
    """
    first, second = replace(entries[0], name=FIRST), replace(entries[1], name=SECOND)
    tables = {item.name: file_evaluation.statistics(task, item, tools) for item in (first, second)}
    result = paired_comparison.differences(tables, [(FIRST, SECOND)], file_evaluation.build_resampling(task))
    counting = WinRateSettings(close, task.gate.resamples, task.gate.confidence, task.seed)
    match = win_rates_by_judge.AlignedPair(task.items, first, second, tables)
    return result, [win_rates_by_judge.by_checks(match, counting), win_rates_by_judge.by_slots(match, counting)]


def rows(task: EvalTask, entries: tuple[SystemResult, SystemResult]) -> list[AnswerRow]:
    """Return one row per input for ``answers.jsonl``, with both answers."""
    return [
        AnswerRow(item.id, item.question, list(item.references), item.fields, {FIRST: first, SECOND: second})
        for item, first, second in zip(task.items, entries[0].answers, entries[1].answers, strict=True)
    ]


def table(report: TwoModelReport) -> tuple[list[str], list[list[str]]]:
    """Return (column titles, rows) for a terminal: one row per metric, both models, the difference with its interval."""
    by_measure = {difference.measure: difference for difference in report.differences}
    lines = []
    for name in metrics.sort_metrics(by_measure):
        one, measure = by_measure[name], metrics.get_metric(name)
        ends = "-" if one.low is None or one.high is None else f"{one.low:+.2f} to {one.high:+.2f}"
        first, second = (scores[name].value for scores in (report.model.scores, report.against.scores))
        lines.append([measure.title, f"{first:.2f}", f"{second:.2f}", f"{one.value:+.2f}", ends, measure.unit])
    return ["metric", FIRST, SECOND, "difference", f"{report.model.confidence:.0%} interval", "unit"], lines

"""Measure one model on one file of inputs and references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from tunectl.config.schema.evaluate import BeamSearch, Check, EvalGate, Greedy, Sampling
from tunectl.evaluation import few_shot, metrics, paired_comparison, scoring, slot_error, system
from tunectl.evaluation import slot_report as slots_beyond
from tunectl.evaluation.few_shot import ZERO_SHOT, FewShotRenderer, FewShotSampler
from tunectl.evaluation.items import Item
from tunectl.evaluation.protocols import Generator, MetricBackends
from tunectl.evaluation.results import AnswerRow, Cost, Score, SlotReport
from tunectl.evaluation.system import GenerationSettings


class FileEvalResult(Struct, frozen=True):
    """JSON output of ``tunectl evaluate DATA``: scores, cost and settings of one model on one file."""

    data: str
    model: str
    adapter: str | None
    inputs: int
    """Number of distinct inputs that were answered."""
    available: int
    references: int
    """Number of reference answers of those inputs."""
    skipped: dict[str, int]
    """Rows that are no input with a reference answer, and inputs that a model cannot be asked, by reason."""
    scores: dict[str, Score]
    """Score by metric; BLEU, chrF and ROUGE-L are 0 to 100."""
    cost: Cost
    decoding: dict[str, Any]
    confidence: float
    resamples: int
    bleu_signature: str
    slots: SlotReport | None = None
    """Slot errors by attribute and size; None where no rules are declared."""


@dataclass(frozen=True)
class EvalTask:
    """Inputs, decoding and metrics of ``tunectl evaluate DATA``."""

    items: Sequence[Item]
    how: Greedy | BeamSearch | Sampling
    gate: EvalGate
    checks: Sequence[Check]
    references: int
    """Number of references per input at most whose likelihood is measured."""
    latency_inputs: int
    seed: int
    rules: slot_error.SlotMatcher | None
    """Rules of the slot error rate; None: it is not measured."""
    worst: int
    """Number of shown answers with most slot errors."""
    small: int
    """Fewer inputs than this are too few to judge."""


def generate_answers(task: EvalTask, generator: Generator, prompter: FewShotRenderer) -> system.SystemResult:
    """Return the model's zero-shot answers to the inputs, with the system text that it was trained with."""
    plain = few_shot.render_items(task.items, ZERO_SHOT, FewShotSampler([], None, task.seed), prompter, task.references)
    asking = GenerationSettings(task.how, task.seed, task.latency_inputs)
    return system.generate_answers("model", generator, plain, ZERO_SHOT, asking)


def compute_scores(task: EvalTask, result: system.SystemResult, tools: MetricBackends) -> dict[str, Score]:
    """Return every metric with its interval, by name; overlap with training is not measured, since its data is unknown here."""
    return paired_comparison.scores(statistics(task, result, tools), build_resampling(task))


def statistics(task: EvalTask, result: system.SystemResult, tools: MetricBackends) -> scoring.Statistics:
    """Return the sufficient statistics behind each score: metric name -> array (items, statistics)."""
    sums = scoring.compute_statistics(
        task.items,
        result.answers,
        result.replies,
        tools=tools,
        declared=task.checks,
        train_grams=frozenset(),
        rules=task.rules,
    )
    sums.pop("seen")
    return sums


def slot_report(task: EvalTask, result: system.SystemResult, tools: MetricBackends) -> SlotReport | None:
    """Return slot errors by attribute and by the number of attributes; None without rules."""
    if task.rules is None:
        return None
    cut = paired_comparison.SliceSettings(
        (), task.small, "slot_error", task.gate.resamples, task.gate.confidence, task.seed
    )
    tables = {result.name: statistics(task, result, tools)}
    return slots_beyond.report(task.rules, task.items, {result.name: result}, tables, cut=cut, worst=task.worst)


def slot_table(result: SlotReport) -> tuple[list[str], list[list[str]]]:
    """Return (column titles, rows) for a terminal: one row per attribute."""
    rows = []
    for part in result.parts:
        count = part.systems["model"]
        share = f"{100 * (count.missing + count.wrong) / part.stated:.1f} %" if part.stated else "-"
        rows.append([part.attribute, str(part.stated), share, str(count.missing), str(count.wrong), str(count.added)])
    return ["attribute", "inputs", "errors", "missing", "wrong", "added"], rows


def build_resampling(task: EvalTask) -> paired_comparison.Resampling:
    """Return the bootstrap resamples of the inputs; equal settings give equal ones, so that models can be compared."""
    return paired_comparison.make_resampling(
        [item.cluster for item in task.items],
        resamples=task.gate.resamples,
        confidence=task.gate.confidence,
        seed=task.seed,
    )


def build_answer_rows(task: EvalTask, result: system.SystemResult) -> list[AnswerRow]:
    """Return one line per input for ``answers.jsonl``."""
    return [
        AnswerRow(item.id, item.question, list(item.references), item.fields, {result.name: text})
        for item, text in zip(task.items, result.answers, strict=True)
    ]


def format_table(report: FileEvalResult) -> tuple[list[str], list[list[str]]]:
    """Return (column titles, rows) for a terminal: one row per metric."""
    rows = []
    for name in metrics.sort_metrics(report.scores):
        score, measure = report.scores[name], metrics.get_metric(name)
        ends = "-" if score.low is None or score.high is None else f"{score.low:.2f} to {score.high:.2f}"
        rows.append([measure.title, f"{score.value:.2f}", ends, measure.unit])
    return ["metric", "value", f"{report.confidence:.0%} interval", "unit"], rows

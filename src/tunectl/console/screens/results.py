"""Screen Results: what the last evaluation measured, and the reports of the other stages that measure: reward, align, agreement."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, field

from tunectl.artifacts import manifest
from tunectl.console import report_fragment
from tunectl.console.read_context import NotFoundError, ProblemList
from tunectl.evaluation import metrics, results
from tunectl.evaluation.results import (
    VERDICT_COLORS,
    EvalVerdict,
    MetricDifference,
    Results,
    SlicePart,
    System,
    WinRate,
)

if TYPE_CHECKING:
    from tunectl.console.read_context import ReadContext

REPORTS: Final = {
    "evaluate": ("Evaluation", "artifacts/evaluate/report.html"),
    "reward": ("Reward model", "artifacts/reward/report.html"),
    "align": ("Alignment", "artifacts/align/report.html"),
    "agreement": ("Agreement of people", "artifacts/agreement.html"),
}
"""Title and file (relative to the project) of each report."""
COMMANDS: Final = {"agreement": "tunectl data agreement"}
"""Commands that write the reports which no stage writes."""


class MetricColumn(Struct, frozen=True):
    """Name, unit and direction of one metric of the score table."""

    name: str
    title: str
    unit: str
    better: str
    """``higher``, ``lower`` or ``neither``."""


class ReportLink(Struct, frozen=True):
    """A stage's HTML report: whether it exists, and the command that writes it."""

    name: str
    title: str
    exists: bool
    command: str
    """Command that writes it."""


class ResultsScreen(Struct, frozen=True):
    """Content of the screen Results: the verdict, the scores with their intervals, and links to reports."""

    verdict: EvalVerdict | None = None
    """None before the first evaluation."""
    tone: str = ""
    """``good``, ``warn`` or ``bad``."""
    aligned_tone: str = ""
    summary: str = ""
    inputs: int = 0
    available: int = 0
    split: str = "test"
    primary: str = ""
    confidence: float = 0.95
    columns: list[MetricColumn] = field(default_factory=list)
    systems: list[System] = field(default_factory=list)
    differences: list[MetricDifference] = field(default_factory=list)
    """Differences of the primary metric."""
    win_rates: list[WinRate] = field(default_factory=list)
    slices: list[SlicePart] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    reports: list[ReportLink] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)


class ReportScreen(Struct, frozen=True):
    """Content of the screen of one report that a stage wrote, cleaned for the console's frame."""

    name: str
    title: str
    file: str
    html: str = ""
    """Cleaned markup; empty where there is no report."""
    command: str = ""
    """Command that writes the report."""
    problems: dict[str, str] = field(default_factory=dict)


def read_results(context: ReadContext, query: Mapping[str, str]) -> ResultsScreen:  # noqa: ARG001 - every screen is read alike
    """Return verdict and scores of the last evaluation, with links to the reports; links alone where there is none."""
    problems = ProblemList()
    evaluation: Results | None = problems.attempt("results", lambda: _load(context), None)
    links = [_find_report(context, name) for name in REPORTS]
    if evaluation is None:
        return ResultsScreen(reports=links, problems=problems.problems)
    names = metrics.sort_metrics({name for system in evaluation.systems for name in system.scores})
    aligned = evaluation.verdict.aligned
    return ResultsScreen(
        verdict=evaluation.verdict,
        tone=VERDICT_COLORS.get(evaluation.verdict.verdict, "warn"),
        aligned_tone="" if aligned is None else VERDICT_COLORS.get(aligned.verdict, "warn"),
        summary=evaluation.verdict.reason
        if aligned is None
        else evaluation.verdict.reason.removesuffix(aligned.reason).strip(),
        inputs=evaluation.inputs,
        available=evaluation.available,
        split=evaluation.split,
        primary=metrics.get_metric(evaluation.primary).title,
        confidence=evaluation.confidence,
        columns=[_describe_metric(name) for name in names],
        systems=evaluation.systems,
        differences=[one for one in evaluation.differences if one.measure == evaluation.primary],
        win_rates=evaluation.win_rates,
        slices=evaluation.slices,
        warnings=evaluation.warnings,
        reports=links,
        problems=problems.problems,
    )


def _load(context: ReadContext) -> Results | None:
    path = context.layout.artifact("evaluate") / results.NAME
    if not (path.parent / manifest.NAME).is_file():
        return None
    evaluation: Results | None = context.read_json(path, Results)
    return evaluation


def _describe_metric(name: str) -> MetricColumn:
    metric = metrics.get_metric(name)
    return MetricColumn(name, metric.title, metric.unit, metric.better)


def _find_report(context: ReadContext, name: str) -> ReportLink:
    title, file = REPORTS[name]
    return ReportLink(
        name, title, (context.layout.root / file).is_file(), COMMANDS.get(name, f"tunectl repro --to {name}")
    )


def read_report(context: ReadContext, query: Mapping[str, str]) -> ReportScreen:
    """Return one report; its markup is cleaned, because a project may come from somebody else, with its reports.

    Raises  NotFoundError for the name of another page.
    """
    name = query.get("report", "")
    if name not in REPORTS:
        raise NotFoundError(name)
    title, file = REPORTS[name]
    problems = ProblemList()
    html: str = problems.attempt("report", lambda: _read_fragment(context, context.layout.root / file), "")
    return ReportScreen(name, title, file, html, _find_report(context, name).command, problems.problems)


def _read_fragment(context: ReadContext, path: Path) -> str:
    from tunectl.console.read_context import stamp_files

    def build() -> Any:
        return report_fragment.clean(path.read_text(encoding="utf-8")) if path.is_file() else ""

    return str(context.cache.get(f"report {path}", stamp_files([path]), build))

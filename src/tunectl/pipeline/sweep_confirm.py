"""Confirm a sweep: compare the best trial with the current settings, once, on the test split."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Example
from tunectl.backends.sweeps.optuna_study import SweepStudy
from tunectl.backends.vcs import build_worktree
from tunectl.backends.wiring import evaluation
from tunectl.config.schema.evaluate import Evaluate
from tunectl.core.errors import UsageError
from tunectl.evaluation import items, metrics, paired_comparison, results, scoring
from tunectl.evaluation.items import Item
from tunectl.evaluation.results import AnswerRow
from tunectl.pipeline import resolved_config
from tunectl.pipeline.sweep_trial import WorktreeTrials
from tunectl.sweeps.trial_records import SweepConfirmation, TrialSummary

TEST = "evaluate.split=test"
SYSTEMS = ("aligned", "tuned")
"""Systems that are compared: the first that both builds have."""


def confirm_best(
    layout: ProjectPaths, study: SweepStudy, stop: threading.Event, tell: Callable[[str], None]
) -> SweepConfirmation | None:
    """Build the best trial and the current settings again, and return their comparison on the test split; None after a stop.

    None also where no single trial is better than the current settings. A sweep is compared only once: repeated comparisons would select a
    trial by the test split.
    Raises  UsageError where one of the two builds fails, or they have no test inputs in common.
    """
    confirmation = study.confirmation
    if confirmation is not None:
        return confirmation
    summary = study.summarize()
    start = next((trial for trial in summary.trials if trial.start and trial.state == "complete"), None)
    best = summary.find(summary.best[0]) if len(summary.best) == 1 else None
    if start is None or best is None or best.start:
        return None
    trials = WorktreeTrials(layout, study.section, study.definition)
    tell(f"confirming trial {best.number} against the settings as they are, on the test split")
    sides = []
    for trial in (start, best):
        project = _build(trials, trial, stop)
        if project is None:
            return None
        sides.append(_BuildAnswers(project))
    comparison = compare_builds(best.number, *sides)
    for trial in (start, best):
        trials.remove(f"confirm-{trial.number}")
    study.set_confirmation(comparison)
    return comparison


def _build(trials: WorktreeTrials, trial: TrialSummary, stop: threading.Event) -> Path | None:
    """Return the project of a trial, built up to evaluate on the test split; None after a stop."""
    project, code = trials.build(f"confirm-{trial.number}", [*trial.overrides, TEST], "evaluate", {}, stop)
    if stop.is_set():
        return None
    if code not in {0, 3}:
        raise UsageError(
            f"trial {trial.number} cannot be confirmed: {build_worktree.describe_failure(project, code)}",
            hint="skip the confirmation with sweep.confirm=false; tunectl sweep take works without it",
        )
    return project


class _BuildAnswers:
    """Answers of one build to its test inputs."""

    def __init__(self, project: Path) -> None:
        layout = ProjectPaths(project)
        rows = atomic_io.read_rows(layout.artifact("split") / "test.jsonl", Example)
        self.items = {item.id: item for item in items.from_examples(rows)[0]}
        folder = layout.artifact("evaluate")
        self.answers = {row.id: row.answers for row in atomic_io.read_rows(folder / results.ANSWERS, AnswerRow)}
        settings, _ = resolved_config.load_stage_config(layout, "evaluate")
        self.settings: Evaluate = settings.evaluate
        self.seed: int = settings.seed


def compare_builds(number: int, start: Any, best: Any) -> SweepConfirmation:
    """Return the difference in the primary metric between the builds ``start`` and ``best`` (trial ``number``), with a paired interval.

    Raises  UsageError where fewer than two inputs are common, as when the space changes the split.
    """
    common = [name for name in start.answers if name in best.answers and start.items.get(name) == best.items.get(name)]
    if len(common) < 2:
        raise UsageError(
            f"trial {number} and the start have {len(common)} test inputs in common, so they cannot be compared",
            hint="the search space changes the data; skip this step (sweep.confirm=false), or keep the split fixed",
        )
    rows = [start.items[name] for name in common]
    system = next(name for name in SYSTEMS if all(name in side.answers[common[0]] for side in (start, best)))
    gate = start.settings.gate
    tables = [
        _statistics(rows, [side.answers[name][system] for name in common], start.settings) for side in (best, start)
    ]
    plan = paired_comparison.make_resampling(
        [item.cluster for item in rows], resamples=gate.resamples, confidence=gate.confidence, seed=start.seed
    )
    metric = metrics.get_metric(gate.primary_metric)
    result = paired_comparison.difference(metric.name, ("best", tables[0]), ("start", tables[1]), plan)
    values = [float(metric.combine(table.sum(axis=0))) for table in tables]
    low, high = (result.low, result.high) if result is not None else (None, None)
    return SweepConfirmation(
        trial=number,
        system=system,
        metric=gate.primary_metric,
        inputs=len(rows),
        start=values[1],
        best=values[0],
        low=low,
        high=high,
        confidence=gate.confidence,
        verdict=_judge(low, high, lower_is_better=metric.better == "lower"),
    )


def _statistics(rows: Sequence[Item], answers: Sequence[str], settings: Evaluate) -> Any:
    table = scoring.compute_statistics(
        rows, answers, None, tools=evaluation.tools(), declared=settings.checks, train_grams=frozenset(), rules=None
    )
    return table[settings.gate.primary_metric]


def _judge(low: float | None, high: float | None, *, lower_is_better: bool) -> Any:
    if low is None or high is None or low <= 0 <= high:
        return "no_difference"
    return "better" if (low > 0) != lower_is_better else "worse"

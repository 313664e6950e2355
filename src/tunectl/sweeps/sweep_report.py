"""Format the results of a sweep, for the terminal and the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tunectl.config.schema.sweep import Sweep
from tunectl.sweeps.trial_records import SweepConfirmation, SweepSummary, TrialClaim, TrialOutcome, TrialSummary


def describe_outcome(claim: TrialClaim, outcome: TrialOutcome, section: Sweep) -> str:
    """Return a line of text about a trial that has ended."""
    reused = f"{outcome.reused} of {outcome.stages} stages reused, " if outcome.stages else ""
    ending = f"{reused}{outcome.seconds:.0f} s"
    settings = " ".join(claim.overrides) or "the settings as they are"
    if outcome.state == "complete":
        pairs = zip(section.objective, outcome.values, strict=True)
        return f"trial {claim.number} ({settings}): {', '.join(f'{goal.metric} {value:.6g}' for goal, value in pairs)}; {ending}"
    return f"trial {claim.number} ({settings}): {outcome.state}: {outcome.reason}; {ending}"


def table(summary: SweepSummary, section: Sweep, number: int | None = None) -> tuple[list[str], list[list[str]]]:
    """Return column names and rows of the table of trials, the best first; at most ``number`` rows."""
    metrics = [goal.metric for goal in section.objective]
    keys = list(section.space)
    columns = ["trial", "state", *metrics, *keys, "steps", "reused", "seconds"]
    rows = [_row(trial, summary, metrics, keys) for trial in rank_trials(summary, section)]
    return columns, rows[:number]


def rank_trials(summary: SweepSummary, section: Sweep) -> list[TrialSummary]:
    """Return the trials by their first objective, best first; then those without a value, by number."""
    sign = -1.0 if section.objective[0].direction == "maximize" else 1.0

    def rank(trial: TrialSummary) -> tuple[bool, bool, float, int]:
        return (
            trial.values is None,
            trial.number not in summary.best,
            sign * trial.values[0] if trial.values else 0.0,
            trial.number,
        )

    return sorted(summary.trials, key=rank)


def _row(trial: TrialSummary, summary: SweepSummary, metrics: Sequence[str], keys: Sequence[str]) -> list[str]:
    mark = " (best)" if trial.number in summary.best else " (start)" if trial.start else ""
    values = [f"{value:.6g}" for value in trial.values] if trial.values else ["-"] * len(metrics)
    reused = f"{trial.reused} of {trial.stages}" if trial.seconds is not None and trial.stages else "-"
    return [
        f"{trial.number}{mark}",
        trial.state,
        *values,
        *(_show(trial, key) for key in keys),
        str(trial.steps) if trial.steps else "-",
        reused,
        f"{trial.seconds:.0f}" if trial.seconds is not None else "-",
    ]


def _show(trial: TrialSummary, key: str) -> str:
    if key not in trial.settings:
        return "as is" if trial.start else "-"
    value: Any = trial.settings[key]
    return f"{value:.6g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def summary_lines(summary: SweepSummary, section: Sweep) -> list[str]:
    """Return lines of text: counts of trials, reused stages, the best trial, and the most important settings."""
    measured = [trial for trial in summary.trials if trial.seconds is not None and trial.stages]
    stages, reused = sum(trial.stages for trial in measured), sum(trial.reused for trial in measured)
    counts = ", ".join(
        f"{count} {state}"
        for state in ("complete", "pruned", "failed", "running", "waiting")
        if (count := summary.count(state))
    )
    lines = [f"{summary.name}: {len(summary.trials)} of {section.n_trials} trials: {counts or 'none yet'}"]
    if stages:
        lines.append(f"reused: {reused} of {stages} stages ({100 * reused / stages:.0f} %) came from DVC's cache")
    if summary.best and len(section.objective) > 1:
        lines.append(f"front: trials {', '.join(map(str, summary.best))}; none is better than another in everything")
    elif summary.best:
        lines.append(_best_line(summary, section))
    if summary.confirmation is not None:
        lines.append(describe_confirmation(summary.confirmation, summary))
    if summary.importance:
        shares = ", ".join(f"{key} {100 * share:.0f} %" for key, share in summary.importance.items())
        lines.append(f"importance for {section.objective[0].metric}: {shares}")
    lines += [f"trial {trial.number} failed: {trial.reason}" for trial in summary.trials if trial.state == "failed"]
    return lines


def describe_confirmation(confirmation: SweepConfirmation, summary: SweepSummary) -> str:
    """Return a sentence about the result on the test split, and whether another trial has become the best since."""
    ends = (
        f" ({confirmation.low:+.2f} to {confirmation.high:+.2f})"
        if confirmation.low is not None and confirmation.high is not None
        else ""
    )
    verdict = {"better": "better", "worse": "worse", "no_difference": "no difference"}[confirmation.verdict]
    line = (
        f"on test: trial {confirmation.trial} has {confirmation.metric} {confirmation.best:.2f}, the start {confirmation.start:.2f}: "
        f"{confirmation.best - confirmation.start:+.2f}{ends}, {confirmation.inputs} inputs, {confirmation.system}: {verdict}"
    )
    if summary.best and confirmation.trial not in summary.best:
        line += f"; trial {summary.best[0]} became the best later, and the test split is not asked twice"
    return line


def _best_line(summary: SweepSummary, section: Sweep) -> str:
    best = summary.find(summary.best[0])
    start = next((trial for trial in summary.trials if trial.start and trial.values), None)
    assert best is not None and best.values is not None  # noqa: PT018  the best trial has values, because it ended
    metric = section.objective[0].metric
    line = f"best: trial {best.number}, {metric} {best.values[0]:.6g}"
    if best.start:
        return f"{line}: the settings as they are; no trial is better"
    if start is not None and start.values is not None:
        line += f" against {start.values[0]:.6g} with the settings as they are"
    return f"{line}; take it over: tunectl sweep take {summary.name}"

"""One HTML page about a sweep: the best value over time, each setting against it, and which setting matters."""

from __future__ import annotations

from tunectl.backends.reports import render, svg_plots
from tunectl.config.schema.sweep import Sweep, SweepRange
from tunectl.sweeps import sweep_report
from tunectl.sweeps.trial_records import SweepSummary, TrialSummary


def page(summary: SweepSummary, section: Sweep) -> str:
    """Return the HTML page about the sweep ``summary``, whose settings are ``section``; plots show the trials that have ended."""
    ended = [trial for trial in summary.trials if trial.values]
    columns, rows = sweep_report.table(summary, section)
    lines = sweep_report.summary_lines(summary, section)
    return render.render(
        "sweep.html",
        name=summary.name,
        summary=next((line for line in lines if line.startswith(("best", "front"))), lines[0]),
        good=bool(summary.best),
        tiles=[(render.number(summary.count(state)), state) for state in ("complete", "pruned", "failed")],
        lines=lines,
        columns=columns,
        rows=rows,
        numbers=list(range(2, len(columns))),
        figures=[*_progress(ended, section), *_plot_front(ended, summary, section), *_importance(summary)]
        + [figure for key in section.space for figure in _setting(ended, section, key)],
        sections=[("trials", "Trials"), ("plots", "Plots")],
    )


def _progress(trials: list[TrialSummary], section: Sweep) -> list[tuple[str, str]]:
    """Plot the best value so far; with several objectives there is none."""
    if len(trials) < 2 or len(section.objective) > 1:
        return []
    best: list[float] = []
    goal = section.objective[0]
    better = max if goal.direction == "maximize" else min
    for trial in trials:
        value = trial.values[0] if trial.values else 0.0
        best.append(better(value, best[-1]) if best else value)
    numbers = [float(trial.number) for trial in trials]
    each = [trial.values[0] for trial in trials if trial.values]
    series = {"best so far": (numbers, best), "trial": (numbers, each)}
    alt = f"{goal.metric} from {best[0]:.4g} to {best[-1]:.4g} in {len(trials)} trials"
    return [(svg_plots.lines(series, xlabel="trial", ylabel=goal.metric, alt=alt), "Best value so far")]


def _plot_front(trials: list[TrialSummary], summary: SweepSummary, section: Sweep) -> list[tuple[str, str]]:
    """Plot the first two objectives against each other."""
    if len(section.objective) < 2 or not trials:
        return []
    first, second = (goal.metric for goal in section.objective[:2])
    points = {
        f"{trial.number}": (trial.values[0], trial.values[1])
        for trial in trials
        if trial.values and trial.number in summary.best
    }
    alt = f"front of trials {', '.join(points)}"
    return [(svg_plots.scatter(points, xlabel=first, ylabel=second, alt=alt), "Front: none is better in everything")]


def _importance(summary: SweepSummary) -> list[tuple[str, str]]:
    if not summary.importance:
        return []
    names, shares = list(summary.importance), list(summary.importance.values())
    alt = ", ".join(f"{name} {share:.0%}" for name, share in summary.importance.items())
    return [
        (svg_plots.bars(names, shares, xlabel="importance", alt=alt, percent=True), "Which setting matters (PED-ANOVA)")
    ]


def _setting(trials: list[TrialSummary], section: Sweep, key: str) -> list[tuple[str, str]]:
    """Plot one numeric setting against the first objective."""
    values = section.space[key]
    points = sorted(
        (float(trial.settings[key]), trial.values[0])
        for trial in trials
        if trial.values
        and isinstance(trial.settings.get(key), int | float)
        and not isinstance(trial.settings[key], bool)
    )
    if len(points) < 2:
        return []
    series = {"trials": ([x for x, _ in points], [y for _, y in points])}
    metric = section.objective[0].metric
    log = isinstance(values, SweepRange) and values.log
    alt = f"{metric} of {len(points)} trials by {key}"
    return [(svg_plots.lines(series, xlabel=key, ylabel=metric, alt=alt, log_x=log), f"{metric} by {key}")]

"""The report of the align stage: one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tunectl.backends.reports import render, svg_plots
from tunectl.training.rl import report
from tunectl.training.rl.report import AlignSettings, find_selected_checkpoint, format_metric_change, measure_title
from tunectl.training.rl.rl_types import RlResult, ValidationPoint

Figure = tuple[str, str]
"""(SVG, caption)."""


def page(*, project: str, settings: AlignSettings, aligned: RlResult) -> str:
    """Return the HTML report of one run of align.

    ``aligned`` must have a validation before the first step, and one at the weights that were kept.
    It contains no time, so that equal runs give equal files.
    """
    stories = report.answer_histories(aligned)
    sections = [("done", "What was done"), ("curves", "Curves")]
    sections += [("answers", "Answers over time")] if stories else []
    sections += [("validation", "Validation")]
    return render.render(
        "align.html",
        project=project,
        sections=sections,
        verdict=report.verdict(settings, aligned),
        warnings=report.warnings(settings, aligned),
        tiles=_tiles(settings, aligned),
        done=report.run_summary(settings, aligned),
        figures=[figure for figure in _figures(settings, aligned) if figure[0]],
        stories=stories,
        measure=measure_title(settings),
        confidence=settings.validation.confidence,
        columns=_columns(settings, aligned),
        rows=[_row(point, aligned) for point in aligned.validation],
    )


def _tiles(settings: AlignSettings, aligned: RlResult) -> list[tuple[str, str]]:
    first, selected = aligned.validation[0], find_selected_checkpoint(aligned)
    gain_tile = (f"{selected.reward - first.reward:+.2f}", "reward, against sft")
    if selected.held_out_accuracy is not None:
        gain_tile = (render.percent(selected.held_out_accuracy), "of held-out pairs ranked right")
    return [
        gain_tile,
        (f"{selected.metric_change:+.1f}", f"points of {measure_title(settings)}"),
        (f"{selected.kl:.1f}", "nats an answer away from sft"),
        (f"{selected.length - first.length:+.1f}", "tokens an answer"),
        (f"{aligned.best_step}", f"kept step, of {aligned.steps}"),
    ]


def _bound_rewards(points: Sequence[ValidationPoint]) -> list[svg_plots.PlotInterval] | None:
    """Return the interval of the reward at each validation; None where one has too few rewarded answers for it."""
    bounds = [
        (point.reward_low, point.reward_high)
        for point in points
        if point.reward_low is not None and point.reward_high is not None
    ]
    return bounds if len(bounds) == len(points) else None


def _figures(settings: AlignSettings, aligned: RlResult) -> list[Figure]:
    points, title = aligned.validation, measure_title(settings)
    start = points[0].metric
    figures = [
        _by_step(
            points,
            "reward",
            lambda point: point.reward,
            band=_bound_rewards(points),
            caption="Mean reward of greedy answers to validation inputs, with the interval of its change.",
        ),
        _by_step(
            points,
            title,
            lambda point: point.metric,
            band=[(start + point.metric_low, start + point.metric_high) for point in points],
            caption=f"The independent measure: {title}, with the interval of its change. It must not fall.",
        ),
        _by_step(
            points,
            "KL to sft",
            lambda point: point.kl,
            unit="nats an answer",
            caption="KL: how far the model has moved from sft.",
        ),
        _frontier(points),
        _by_step(
            points, "length", lambda point: point.length, unit="tokens an answer", caption="Length of the answers."
        ),
        _by_step(
            points,
            "repetition",
            lambda point: 100 * point.repetition,
            unit="% of runs of three words",
            caption="Repetition in the answers.",
        ),
        _by_step(
            points,
            "spread over inputs",
            lambda point: point.spread,
            unit="standard deviation",
            caption="Spread of the reward over validation inputs.",
        ),
    ]
    return [*figures, _within_prompt(aligned), _training(settings, aligned), _plot_held_out(points)]


def _by_step(
    points: Sequence[ValidationPoint],
    title: str,
    value: Callable[[ValidationPoint], float],
    *,
    caption: str,
    unit: str = "",
    band: Sequence[svg_plots.PlotInterval] | None = None,
) -> Figure:
    steps, values = [point.step for point in points], [value(point) for point in points]
    svg = svg_plots.lines(
        {title: (steps, values)},
        xlabel="step",
        ylabel=unit or title,
        alt=f"{title} from {values[0]:.2f} at step {steps[0]} to {values[-1]:.2f} at step {steps[-1]}",
        bands=None if band is None else {title: band},
    )
    return svg, caption


def _frontier(points: Sequence[ValidationPoint]) -> Figure:
    """Plot reward against the square root of KL: about a line unless the reward is exploited (Bai et al., arXiv 2204.05862)."""
    x, y = [max(0.0, point.kl) ** 0.5 for point in points], [point.reward for point in points]
    svg = svg_plots.lines(
        {"validations": (x, y)},
        xlabel="square root of KL",
        ylabel="reward",
        alt=f"Reward from {y[0]:.2f} to {y[-1]:.2f} while the square root of KL goes from {x[0]:.2f} to {x[-1]:.2f}",
    )
    return svg, "What each step away from sft bought. A line that bends down buys less and less."


def _within_prompt(aligned: RlResult) -> Figure:
    points = [(point.step, point.reward_spread) for point in aligned.history if point.reward_spread is not None]
    if not points:
        return "", ""
    return _history(points, "spread within inputs", "standard deviation"), (
        "How far the rewards of one input's answers differ, in training. Near zero there is nothing to compare."
    )


def _training(settings: AlignSettings, aligned: RlResult) -> Figure:
    points = [(point.step, point.reward) for point in aligned.history if point.reward is not None]
    if not points:
        return "", ""
    online = settings.method in {"rloo", "grpo"}
    title = "reward in training" if online else "margin in training"
    return _history(points, title, "" if online else "nats times beta"), (
        "Mean reward of the answers that were learned from, step by step."
        if online
        else "How much further the chosen answers have risen than the rejected ones, step by step."
    )


def _plot_held_out(points: Sequence[ValidationPoint]) -> Figure:
    series = {
        "loss": [(point.step, point.held_out_loss) for point in points if point.held_out_loss is not None],
        "share of pairs right": [
            (point.step, point.held_out_accuracy) for point in points if point.held_out_accuracy is not None
        ],
    }
    curves = {name: ([x for x, _ in points], [y for _, y in points]) for name, points in series.items() if points}
    if not curves:
        return "", ""
    summary = "; ".join(f"{name} from {values[1][0]:.2f} to {values[1][-1]:.2f}" for name, values in curves.items())
    svg = svg_plots.lines(curves, xlabel="step", ylabel="on validation judgments", alt=summary)
    return svg, "Judgments that were held out: the loss should fall, the share of pairs ranked right should rise."


def _history(points: Sequence[tuple[int, float]], title: str, unit: str) -> str:
    steps, values = [step for step, _ in points], [value for _, value in points]
    return svg_plots.lines(
        {title: (steps, values)},
        xlabel="step",
        ylabel=unit or title,
        alt=f"{title} from {values[0]:.2f} to {values[-1]:.2f} over {steps[-1]} steps",
    )


def _columns(settings: AlignSettings, aligned: RlResult) -> list[str]:
    columns = ["Step", "Reward", f"{measure_title(settings)}, change", "KL", "Tokens", "Repetition", "Cut"]
    if aligned.validation[0].held_out_loss is not None:
        columns.append("Loss, held out")
    return columns


def _format_reward_interval(point: ValidationPoint) -> str:
    low, high = point.reward_low, point.reward_high
    return "no interval" if low is None or high is None else f"{low:.2f} to {high:.2f}"


def _row(point: ValidationPoint, aligned: RlResult) -> list[str]:
    selected_note = " (kept)" if point.step == aligned.best_step else ""
    first = point.step == aligned.validation[0].step
    cells = [
        f"{point.step}{' sft' if first else ''}{selected_note}",
        f"{point.reward:.2f}" if first else f"{point.reward:.2f} ({_format_reward_interval(point)})",
        f"{point.metric:.1f}" if first else f"{point.metric:.1f}, {format_metric_change(point)}",
        f"{point.kl:.2f}",
        f"{point.length:.1f}",
        render.percent(point.repetition),
        render.percent(point.truncated),
    ]
    if aligned.validation[0].held_out_loss is not None:
        cells.append(render.number(point.held_out_loss))
    return cells

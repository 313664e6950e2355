"""The report of a reward model: one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence

from tunectl.backends.reports import render, svg_plots
from tunectl.training.protocols import LogPoint
from tunectl.training.reward.reward_artifacts import Fit, RewardResults
from tunectl.training.reward.reward_gate import format_estimate, format_percent, format_points
from tunectl.training.reward.reward_metrics import CalibrationBin, Estimate, RewardMeasurement

SHORT = 60
"""Characters of an input in the summary of a fold-out."""


def page(results: RewardResults, history: Sequence[LogPoint]) -> str:
    """Return the HTML report of ``results``, with the training curve ``history`` of the first member. Equal results give equal bytes."""
    sections = [("scores", "Scores"), ("calibration", "Calibration"), ("length", "Length")]
    sections += [("slices", "Kinds and fields")] if results.slices else []
    sections += [("worst", "Worst judged")] if results.worst else []
    sections += [("training", "Training")]
    return render.render(
        "reward.html",
        results=results,
        sections=sections,
        tiles=_tiles(results),
        score_rows=_score_rows(results),
        bars=_bars(results),
        reliability=_reliability(results.test.bins),
        bin_rows=[_bin_row(item) for item in results.test.bins],
        ece=format_percent(results.test.ece),
        log_loss=format_estimate(results.test.log_loss),
        gain=format_points(results.gain_over_length),
        length=format_percent(results.length_only.accuracy),
        slices=_slices(results),
        cases=[(_short(item.prompt), item) for item in results.worst],
        fit_rows=[_fit_row(fit) for fit in results.fits],
        curve=_curve(history),
    )


def _tiles(results: RewardResults) -> list[tuple[str, str]]:
    test = results.test
    return [
        (f"{100 * test.accuracy.value:.1f} %", "of held-out pairs judged as people did"),
        (f"{100 * max(0.5, results.length_only.accuracy.value):.1f} %", "to beat: chance, or lengths alone"),
        (f"{100 * test.ece.value:.1f} %", "calibration error"),
        (render.number(test.pairs), f"test pairs of {render.number(test.prompts)} prompts"),
        (render.number(results.train_pairs), f"training pairs of {render.number(results.train_prompts)} prompts"),
    ]


def _score_rows(results: RewardResults) -> list[list[str]]:
    rows = [["Reward model, test", *_cells(results.test)], ["Reward model, validation", *_cells(results.validation)]]
    length = results.length_only
    rows.append(
        [
            "Lengths alone, test",
            format_percent(length.accuracy),
            format_estimate(length.log_loss),
            "n/a",
            str(results.test.pairs),
        ]
    )
    if results.judge is not None:
        rows.append(["Judge, test", *_cells(results.judge)])
    if len(results.members_alone) > 1:
        rows += [
            [f"Member {index}, test", format_percent(item), "n/a", "n/a", str(results.test.pairs)]
            for index, item in enumerate(results.members_alone)
        ]
    return rows


def _cells(measurement: RewardMeasurement) -> list[str]:
    return [
        format_percent(measurement.accuracy),
        format_estimate(measurement.log_loss),
        format_percent(measurement.ece),
        render.number(measurement.pairs),
    ]


def _ends(figure: Estimate) -> tuple[float, float]:
    if figure.low is None or figure.high is None:
        return figure.value, figure.value
    return figure.low, figure.high


def _bars(results: RewardResults) -> str:
    bars = [("reward model", results.test.accuracy), ("lengths alone", results.length_only.accuracy)]
    bars += [("judge", results.judge.accuracy)] if results.judge is not None else []
    summary = "; ".join(f"{name}: {format_percent(figure)}" for name, figure in bars)
    return svg_plots.forest(
        [name for name, _ in bars],
        [figure.value for _, figure in bars],
        [_ends(figure) for _, figure in bars],
        xlabel="accuracy on held-out pairs (0.5: chance)",
        alt=f"Accuracy. {summary}",
        zero=0.5,
    )


def _reliability(bins: Sequence[CalibrationBin]) -> str:
    chances, shares = [item.confidence for item in bins], [item.accuracy for item in bins]
    summary = "; ".join(f"sure by {item.confidence:.2f}, right in {item.accuracy:.2f} of {item.pairs}" for item in bins)
    return svg_plots.lines(
        {"reward model": (chances, shares), "perfect": ([0.5, 1.0], [0.5, 1.0])},
        xlabel="chance that the predicted winner wins",
        ylabel="share that won",
        alt=f"Reliability. {summary}",
        bands={"reward model": [(item.low, item.high) for item in bins]},
        dashed=["perfect"],
    )


def _bin_row(bin_: CalibrationBin) -> list[str]:
    return [
        f"{bin_.start:.2f} to {bin_.end:.2f}",
        render.number(bin_.pairs),
        f"{bin_.confidence:.3f}",
        f"{bin_.accuracy:.3f} ({bin_.low:.3f} to {bin_.high:.3f})",
    ]


def _slices(results: RewardResults) -> list[tuple[str, list[list[str]], str]]:
    """Return one block a field: name, table, picture."""
    blocks = []
    for field in dict.fromkeys(item.field for item in results.slices):
        parts = [item for item in results.slices if item.field == field]
        rows = [[part.value, render.number(part.pairs), format_percent(part.accuracy)] for part in parts]
        summary = "; ".join(f"{value}: {accuracy}" for value, _, accuracy in rows)
        picture = svg_plots.forest(
            [f"{part.value} (n={part.pairs})" for part in parts],
            [part.accuracy.value for part in parts],
            [_ends(part.accuracy) for part in parts],
            xlabel="accuracy (0.5: chance)",
            alt=f"Accuracy by {field}. {summary}",
            zero=0.5,
        )
        blocks.append((field, rows, picture))
    return blocks


def _short(prompt: str) -> str:
    flat = " ".join(prompt.partition(": ")[2].split()) or prompt
    return flat if len(flat) <= SHORT else f"{flat[: SHORT - 1]}…"


def _fit_row(fit: Fit) -> list[str]:
    return [
        fit.name,
        render.number(fit.seed),
        f"{fit.best_step} of {fit.steps}"
        + ("" if fit.steps == fit.planned_steps else f" ({fit.planned_steps} planned)"),
        f"{fit.first_log_loss:.3f}",
        f"{fit.validation_log_loss:.3f}",
        render.number(fit.tokens),
    ]


def _curve(history: Sequence[LogPoint]) -> str:
    """Return losses by step; empty where nothing was measured."""
    series: dict[str, tuple[list[float], list[float]]] = {}
    for name, values in (
        ("training loss", [(point.step, point.loss) for point in history]),
        ("validation log-loss", [(point.step, point.validation_loss) for point in history]),
    ):
        coordinates = [(float(step), value) for step, value in values if value is not None]
        if coordinates:
            series[name] = [step for step, _ in coordinates], [value for _, value in coordinates]
    if not series:
        return ""
    summary = "; ".join(f"{name} from {values[0]:.3f} to {values[-1]:.3f}" for name, (_, values) in series.items())
    return svg_plots.lines(series, xlabel="step", ylabel="nats a pair", alt=summary)

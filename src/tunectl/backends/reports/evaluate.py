"""The report of an evaluation: one self-contained HTML page."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunectl.artifacts import atomic_io
from tunectl.backends.reports import evaluate_sections, render, svg_plots
from tunectl.evaluation import gate, metrics, summary
from tunectl.evaluation.prompt_search import describe
from tunectl.evaluation.results import (
    VERDICT_COLORS,
    Candidate,
    EvalVerdict,
    MetricDifference,
    Results,
    Score,
    SlicePart,
    System,
)

CURVES = {"train_loss": "training loss", "loss": "training loss", "validation_loss": "validation loss"}
"""Columns of history.csv that are drawn."""


def page(results: Results, *, history: Path, split: Path) -> str:
    """Return the HTML report of ``results``, with the training curve in ``history`` (CSV) and the data summary in ``split`` (JSON).

    Both may be absent; their sections are left out then.
    """
    curve, data = _curve(history), _data(split)
    cause_rows = evaluate_sections.cause_rows(results)
    sections = [("causes", "Causes")] if cause_rows else []
    sections += [("scores", "Scores")]
    sections += [("pairs", "Pair by pair")] if results.win_rates else []
    sections += [("slots", "Slots")] if results.slots else []
    sections += [("slices", "Slices")] if results.slices else []
    sections += [("answers", "Answers")] if results.cases else []
    sections += [("prompts", "Prompts")] if results.search else []
    sections += [("safety", "Safety")] if results.safety else []
    sections += [("judge", "Judge")] if results.judge else []
    sections += [("cost", "Length and cost")]
    sections += [("training", "Training")] if curve else []
    sections += [("data", "Data")]
    return render.render(
        "evaluate.html",
        results=results,
        sections=sections,
        kind=VERDICT_COLORS[results.verdict.verdict],
        reason=_tuned_reason(results.verdict),
        aligned_kind=None if results.verdict.aligned is None else VERDICT_COLORS[results.verdict.aligned.verdict],
        cause_rows=cause_rows,
        fact_rows=evaluate_sections.fact_rows(results),
        win_columns=list(evaluate_sections.WIN_COLUMNS),
        win_rows=evaluate_sections.win_rows(results.win_rates),
        win_silent=evaluate_sections.judge_notes(results.win_rates),
        win_plot=evaluate_sections.win_plot(results.win_rates),
        slot_rows=evaluate_sections.slot_rows(results),
        added_rows=evaluate_sections.added_rows(results),
        slot_plot=evaluate_sections.slot_plot(results),
        size_rows=evaluate_sections.size_rows(results),
        titles={system.name: system.title for system in results.systems},
        primary=metrics.get_metric(results.primary).title,
        tiles=_tiles(results),
        score_rows=_score_rows(results),
        columns=[metrics.get_metric(name).title for name in summary.columns_of(results)],
        interval_rows=_interval_rows(results),
        forest=_forest(results),
        bars=_bars(results),
        difference_rows=_difference_rows(results),
        slices=_slices(results),
        search_rows=[] if results.search is None else _search_rows(results.search.candidates, results.search.chosen),
        safety_rows=_safety_rows(results),
        cost_rows=_cost_rows(results.systems),
        cost_plot=_cost_plot(results.systems),
        length_plot=_length_plot(results),
        curve=curve,
        data=data,
    )


def _tuned_reason(verdict: EvalVerdict) -> str:
    """Return the sentence about the tuned model alone."""
    return verdict.reason if verdict.aligned is None else verdict.reason.removesuffix(verdict.aligned.reason).strip()


def _list_metric_names(results: Results) -> list[str]:
    """Return every metric that some system has, in the order of the tables; single checks at the end."""
    return metrics.sort_metrics(name for system in results.systems for name in system.scores)


def _tiles(results: Results) -> list[tuple[str, str]]:
    tuned, title = results.system("tuned"), metrics.get_metric(results.primary).title
    tiles = []
    if tuned is not None and results.primary in tuned.scores:
        tiles.append((f"{tuned.scores[results.primary].value:.1f}", f"{title} of the tuned model"))
    for against in ("base", "prompted", "nearest"):
        gain = results.difference(against)
        if gain is not None:
            tiles.append((f"{gain.value:+.1f}", f"against {gate.describe_system(against)}"))
    gain = results.difference("tuned", system="aligned")
    if gain is not None:
        tiles.append((f"{gain.value:+.1f}", f"{title} of aligned against tuned"))
    for name in ("tuned", "aligned"):
        system = results.system(name)
        if system is not None and "slot_error" in system.scores:
            tiles.append((f"{system.scores['slot_error'].value:.1f} %", f"slot errors, {system.title.lower()}"))
    tiles.append((render.number(results.inputs), f"{results.split} inputs of {render.number(results.available)}"))
    return tiles


def _score_rows(results: Results) -> list[list[str]]:
    """Return one row per system; only the primary metric shows its interval, so that the table fits a screen."""
    names = summary.columns_of(results)
    return [
        [
            _join_title(system.title),
            *(_score(system.scores.get(name), name, ends=name == results.primary) for name in names),
        ]
        for system in results.systems
    ]


def _interval_rows(results: Results) -> list[list[str]]:
    """Return one row per metric, one column per system, all with intervals."""
    return [
        [
            metrics.get_metric(name).title,
            *(_score(system.scores.get(name), name, ends=True) for system in results.systems),
        ]
        for name in _list_metric_names(results)
    ]


def _join_title(title: str) -> str:
    """Keep the words of a title on one line of a narrow table."""
    return title.replace(" ", "\u00a0")


def _score(score: Score | None, name: str, *, ends: bool) -> str:
    if score is None:
        return render.number(None)
    digits = 2 if name == "perplexity" else 1
    if not ends or score.low is None or score.high is None:
        return f"{score.value:.{digits}f}"
    return f"{score.value:.{digits}f} ({score.low:.{digits}f} to {score.high:.{digits}f})"


def _forest(results: Results) -> str:
    """Plot every difference of the primary metric that has an interval."""
    differences = [d for d in results.differences if d.measure == results.primary and d.low is not None]
    if not differences:
        return ""
    title = metrics.get_metric(results.primary).title
    return svg_plots.forest(
        [_pair(d) for d in differences],
        [d.value for d in differences],
        [(d.low or 0.0, d.high or 0.0) for d in differences],
        xlabel=f"difference in {title}",
        alt="; ".join(gate.describe_metric_difference(d, title, results.confidence) for d in differences),
    )


def _pair(difference: MetricDifference) -> str:
    return f"{difference.system} − {difference.against}"  # noqa: RUF001 - a minus sign, as readers know it


def _bars(results: Results) -> str:
    """Plot the metrics on a scale of 0 to 100, one bar per system."""
    names = [
        name
        for name in _list_metric_names(results)
        if metrics.get_metric(name).better == "higher" and not name.startswith("check_")
    ]
    series = {
        system.title: [system.scores[name].value if name in system.scores else 0.0 for name in names]
        for system in results.systems
    }
    intervals = {system.title: [_ends(system.scores.get(name)) for name in names] for system in results.systems}
    labels = [metrics.get_metric(name).title for name in names]
    summary = "; ".join(f"{title}: {', '.join(f'{value:.1f}' for value in values)}" for title, values in series.items())
    return svg_plots.grouped_bars(
        labels, series, xlabel="0 to 100, more is better", alt=f"{', '.join(labels)}. {summary}", intervals=intervals
    )


def _ends(score: Score | None) -> tuple[float, float]:
    if score is None:
        return (0.0, 0.0)
    if score.low is None or score.high is None:
        return (score.value, score.value)
    return (score.low, score.high)


def _difference_rows(results: Results) -> list[list[str]]:
    return [
        [
            _pair(d),
            metrics.get_metric(d.measure).title,
            f"{d.value:+.2f}",
            render.number(None) if d.low is None or d.high is None else f"{d.low:+.2f} to {d.high:+.2f}",
            render.number(None) if d.probability is None else _probability(d.probability, results.resamples),
        ]
        for d in results.differences
    ]


def _probability(value: float, resamples: int) -> str:
    least = 2 / resamples
    return f"< {least:.2g}" if value < least else f"{value:.2g}"


def _slices(results: Results) -> list[dict[str, Any]]:
    """Return one block per field: a table and a picture of base and tuned."""
    fields: dict[str, list[SlicePart]] = {}
    for part in results.slices:
        fields.setdefault(part.field, []).append(part)
    names = [system.name for system in results.systems]
    title = metrics.get_metric(results.primary).title
    gains = ["Tuned over base", *(["Aligned over tuned"] if "aligned" in names else [])]
    blocks = []
    for field, parts in fields.items():
        rows = [
            [
                _join_title(f"{part.value} (small)" if part.small else part.value),
                render.number(part.items),
                *(f"{part.scores[name].value:.1f}" if name in part.scores else render.number(None) for name in names),
                summary.format_difference(part.difference) if part.difference is not None else render.number(None),
                *(
                    []
                    if not gains[1:]
                    else [render.number(None) if part.aligned is None else summary.format_difference(part.aligned)]
                ),
            ]
            for part in parts
        ]
        blocks.append({"field": field, "rows": rows, "gains": gains, "plot": _slice_plot(parts, title, field)})
    return blocks


def _slice_plot(parts: Sequence[SlicePart], title: str, field: str) -> str:
    parts_with_interval = [part for part in parts if part.difference is not None and part.difference.low is not None][
        :14
    ]
    if not parts_with_interval:
        return ""
    ends = [
        (part.difference.low or 0.0, part.difference.high or 0.0) for part in parts_with_interval if part.difference
    ]
    values = [part.difference.value for part in parts_with_interval if part.difference]
    labels = [f"{part.value} (n={part.items})" for part in parts_with_interval]
    summary = "; ".join(f"{label}: {value:+.1f}" for label, value in zip(labels, values, strict=True))
    return svg_plots.forest(
        labels, values, ends, xlabel=f"gain in {title}, tuned over base", alt=f"Gain by {field}. {summary}"
    )


def _search_rows(candidates: Sequence[Candidate], best: int) -> list[list[str]]:
    return [
        [
            describe(candidate.prompt) + (" (chosen)" if index == best else ""),
            f"{candidate.score:.1f}" if candidate.score is not None else candidate.why_not,
            render.number(candidate.tokens),
            f"{candidate.seconds:.1f}" if candidate.score is not None else render.number(None),
        ]
        for index, candidate in enumerate(candidates)
    ]


def _safety_rows(results: Results) -> list[list[str]]:
    safety = results.safety
    if safety is None:
        return []
    names = [system.name for system in results.systems if system.name in safety.toxic]
    titles = {system.name: system.title for system in results.systems}
    return [
        [
            _join_title(titles[name]),
            _count(safety.refused_harmful.get(name)),
            _count(safety.answered_benign.get(name)),
            _count(safety.toxic.get(name)),
            _count(safety.placeholders.get(name)),
            f"{safety.canaries[name]} of {safety.planted}" if name in safety.canaries else render.number(None),
        ]
        for name in names
    ]


def _count(score: Score | None) -> str:
    return render.number(None) if score is None else f"{round(score.value * score.items)} of {score.items}"


def _cost_rows(systems: Sequence[System]) -> list[list[str]]:
    rows = []
    for system in systems:
        cost, words = system.cost, system.scores.get("words")
        if cost is None:
            continue
        rows.append(
            [
                _join_title(system.title),
                f"{words.value:.1f}" if words else render.number(None),
                f"{cost.prompt_tokens / cost.answers:.0f}",
                f"{cost.tokens / cost.answers:.0f}",
                f"{cost.seconds / cost.answers:.2f}",
                f"{cost.tokens_per_second or 0:.0f}",
                render.number(None) if cost.one_at_a_time is None else f"{cost.one_at_a_time:.2f}",
                render.number(None)
                if cost.one_at_a_time is None
                else f"{cost.one_at_a_time_tokens_per_second or 0:.0f}",
            ]
        )
    return rows


def _cost_plot(systems: Sequence[System]) -> str:
    cost_systems = [system for system in systems if system.cost is not None]
    if not cost_systems:
        return ""
    values = {
        "prompt": [system.cost.prompt_tokens / system.cost.answers for system in cost_systems if system.cost],
        "answer": [system.cost.tokens / system.cost.answers for system in cost_systems if system.cost],
    }
    summary = "; ".join(
        f"{system.title}: {prompt:.0f} and {answer:.0f}"
        for system, prompt, answer in zip(cost_systems, values["prompt"], values["answer"], strict=True)
    )
    labels = [system.title for system in cost_systems]
    return svg_plots.grouped_bars(labels, values, xlabel="tokens an answer", alt=f"Prompt and answer tokens. {summary}")


def _length_plot(results: Results) -> str:
    measured = [(system.title, system.scores["words"]) for system in results.systems if "words" in system.scores]
    summary = "; ".join(f"{title}: {score.value:.1f}" for title, score in measured)
    return svg_plots.bars(
        [title for title, _ in measured],
        [score.value for _, score in measured],
        xlabel="words an answer",
        alt=f"Mean length. {summary}",
        intervals=[_ends(score) for _, score in measured],
    )


def _curve(history: Path) -> str:
    """Plot losses by step; empty where there is no curve."""
    if not history.is_file():
        return ""
    with history.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    series = {}
    for column, name in CURVES.items():
        points = [(float(row["step"]), float(row[column])) for row in rows if row.get(column) and row.get("step")]
        if points:
            series[name] = ([x for x, _ in points], [y for _, y in points])
    if not series:
        return ""
    summary = "; ".join(f"{name} from {values[1][0]:.2f} to {values[1][-1]:.2f}" for name, values in series.items())
    return svg_plots.lines(series, xlabel="step", ylabel="nats a token", alt=summary)


def _data(split: Path) -> dict[str, Any] | None:
    """Return the report of the split stage; None where it is absent."""
    if not split.is_file():
        return None
    result: dict[str, Any] = atomic_io.read_json(split)
    return result

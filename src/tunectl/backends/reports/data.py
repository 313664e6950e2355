"""Draw the data report: facts in, one HTML page out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tunectl.artifacts.records import SPLIT_NAMES
from tunectl.backends.reports import render as report_render
from tunectl.backends.reports import svg_plots
from tunectl.data.data_report import DataFacts, FieldShares, RejectCount, list_findings
from tunectl.data.learning_curve import Curve
from tunectl.data.population_balance import FieldBalance, ValueShare
from tunectl.data.split.report import SplitReport

VIEW_TITLES = {"records": "All records", "documents": "Raw documents", "train": "Train, as it is learned from"}
"""Parts of the data whose shares are compared with the population."""


def render(project: str, facts: DataFacts, *, curve: Curve | None) -> str:
    """Return the HTML of the data report; ``curve`` is the learning curve, None if it was not measured."""
    population = _population(facts)
    return report_render.render(
        "data.html",
        project=project,
        notes=list_findings(facts),
        tiles=_tiles(facts),
        accounts=facts.accounts,
        sources=facts.sources,
        origin=facts.origin,
        source_plot=_sources(facts),
        lengths=_lengths(facts),
        losses=facts.losses,
        loss_plot=_loss_plot(facts.losses),
        duplicates=_duplicates(facts),
        curation=facts.curation,
        curation_plots=_curation_plots(facts),
        population=population,
        split=facts.split,
        split_plots=_split_plots(facts),
        curve=curve,
        curve_plot=None if curve is None else _curve_plot(curve),
        sections=_contents(facts, curve),
        by_target=by_target,
    )


def _contents(facts: DataFacts, curve: Curve | None) -> list[tuple[str, str]]:
    result = [("account", "Row counts"), ("sources", "Sources"), ("lengths", "Lengths"), ("rejects", "Rejects")]
    result.append(("duplicates", "Duplicates"))
    if facts.curation is not None:
        result.append(("curation", "Repairs, languages, personal data"))
    if facts.split is not None:
        result += [("who", "Who is in the data"), ("splits", "Splits and leakage")]
    return [*result, ("curve", "Enough data?")] if curve is not None else result


def _tiles(facts: DataFacts) -> list[tuple[str, str]]:
    first, documents = facts.accounts[0], len(facts.lengths.documents)
    rejected = sum(sum(line.rejected.values()) for line in facts.accounts)
    tiles = [(report_render.number(first.rows_in), "raw rows"), (report_render.number(rejected), "rejected")]
    tiles += [(report_render.number(documents), "documents")] if documents else []
    tiles.append((report_render.number(sum(kind["examples"] for kind in facts.kinds.values())), "examples"))
    if facts.split is not None:
        tiles += [(report_render.number(facts.split.sizes[part]), part) for part in SPLIT_NAMES]
    return tiles


def _sources(facts: DataFacts) -> str:
    kinds = sorted(facts.kinds, key=lambda kind: -sum(facts.kinds[kind].values()))
    counts_by_kind = {what: [facts.kinds[kind][what] for kind in kinds] for what in ("examples", "documents")}
    series = {what: values for what, values in counts_by_kind.items() if any(values)}
    alt = "; ".join(
        f"{kind}: {facts.kinds[kind]['examples']} examples, {facts.kinds[kind]['documents']} documents"
        for kind in kinds
    )
    return svg_plots.stacked_bars(kinds, series, xlabel=" and ".join(series), alt=alt)


def _lengths(facts: DataFacts) -> list[tuple[str, str]]:
    lengths = facts.lengths
    plots = []
    series = {name: values for name, values in (("input", lengths.inputs), ("answer", lengths.answers)) if values}
    if series:
        plots.append((_histogram(series, "texts"), f"Words of inputs and answers: {_summary(series)}."))
    if lengths.documents:
        series = {"document": lengths.documents}
        plots.append((_histogram(series, "documents"), f"Words of raw documents: {_summary(series)}."))
    if lengths.references and max(lengths.references) > 1:
        plots.append(
            (
                _counts(lengths.references, "reference answers of one input", "inputs"),
                "How many reference answers an input has.",
            )
        )
    return plots


def _histogram(series: dict[str, list[int]], ylabel: str) -> str:
    every = sorted(value for values in series.values() for value in values)
    # a long tail would squeeze everything else against the axis
    skewed = every[-1] > 20 * max(1, every[len(every) // 2])
    return svg_plots.histogram(
        series, xlabel="words" + (" (log)" if skewed else ""), ylabel=ylabel, alt=_summary(series), log_x=skewed
    )


def _counts(values: Sequence[int], xlabel: str, ylabel: str) -> str:
    counts = Counter(values)
    alt = f"{xlabel}: {min(values)} to {max(values)}"
    if len(counts) <= 12:
        sizes = sorted(counts)
        return svg_plots.bars(
            [str(size) for size in sizes], [counts[size] for size in sizes], xlabel=f"{ylabel}, by {xlabel}", alt=alt
        )
    return svg_plots.histogram(
        {xlabel: values}, xlabel=xlabel, ylabel=ylabel, bins=min(30, max(values) - min(values) + 1), alt=alt
    )


def _summary(series: dict[str, list[int]]) -> str:
    parts = []
    for name, values in series.items():
        ordered = sorted(values)
        parts.append(f"{name} {ordered[len(ordered) // 2]:,} in the middle, {ordered[0]:,} to {ordered[-1]:,}")
    return "; ".join(parts)


def _loss_plot(losses: Sequence[RejectCount]) -> str | None:
    if not losses:
        return None
    largest = losses[:15]
    labels = [f"{loss.stage}: {loss.reason}" for loss in largest]
    alt = "; ".join(f"{label} {loss.rows}" for label, loss in zip(labels, largest, strict=True))
    return svg_plots.bars(labels, [loss.rows for loss in largest], xlabel="rows", alt=alt)


def _duplicates(facts: DataFacts) -> dict[str, Any]:
    result = [loss for loss in facts.losses if "duplicate" in loss.reason]
    clusters = [size for size in facts.clusters if size > 1]
    figure = _counts(clusters, "records in a cluster", "clusters") if clusters else None
    return {"losses": result, "clusters": len(clusters), "inside": sum(clusters), "plot": figure}


def _curation_plots(facts: DataFacts) -> list[tuple[str, str]]:
    if facts.curation is None:
        return []
    curation = facts.curation
    hidden = f"Personal data that became placeholders, by kind; {curation.personal_records or 0:,} records had some."
    parts = (
        (curation.repairs, "texts", "Texts that each repair changed."),
        (curation.languages, "texts", "Texts by language; unknown are short or unsure."),
        (curation.personal, "places", hidden),
    )
    return [
        (_count_bars(counts, xlabel), caption) for counts, xlabel, caption in parts if counts and any(counts.values())
    ]


def _count_bars(counts: Mapping[str, int], xlabel: str) -> str:
    largest = {name: count for name, count in sorted(counts.items(), key=lambda item: -item[1])[:15] if count}
    return svg_plots.bars(
        list(largest),
        list(largest.values()),
        xlabel=xlabel,
        alt="; ".join(f"{name} {count}" for name, count in largest.items()),
    )


def _population(facts: DataFacts) -> list[dict[str, Any]]:
    if facts.split is None:
        return []
    balance = facts.split.balance
    fields = [entry.field for entry in balance.get("records", [])]
    rows = []
    for field in fields:
        views = [
            (view, next(entry for entry in balance[view] if entry.field == field))
            for view in VIEW_TITLES
            if view in balance
        ]
        views = [
            (view, entry)
            for view, entry in views
            if entry.known and (view != "train" or facts.weights or facts.split.weights)
        ]
        figures = [(_share_plot(entry), f"{VIEW_TITLES[view]}. {_describe_test(entry)}") for view, entry in views]
        rows.append(
            {"field": field, "views": [(VIEW_TITLES[view], entry) for view, entry in views], "figures": figures}
        )
    return rows


def by_target(entry: FieldBalance) -> list[ValueShare]:
    """Return the values of a field, sorted by their share of the declared population, the largest first."""
    return sorted(entry.values, key=lambda value: (-value.target, value.value))


def _share_plot(entry: FieldBalance) -> str:
    values = by_target(entry)
    alt = "; ".join(f"{value.value} {value.share:.1%}, population {value.target:.1%}" for value in values)
    intervals = [(value.low, value.high) for value in values]
    return svg_plots.bars(
        [value.value for value in values],
        [value.share for value in values],
        xlabel=f"share of {entry.known:,} rows (worth {entry.worth:,.0f} independent ones)",
        alt=alt,
        intervals=intervals,
        targets=[value.target for value in values],
        percent=True,
    )


def _describe_test(entry: FieldBalance) -> str:
    if entry.test is None:
        return "Nothing to test."
    chance = "p < 0.001" if entry.test.p_value < 0.001 else f"p = {entry.test.p_value:.3f}"
    like = "Not like the population" if entry.test.p_value < 0.05 else "No evidence of a difference from the population"
    effect = "" if entry.test.effect is None else f", Cohen's w {entry.test.effect:.2f} ({entry.size})"
    return f"{like}: {chance} ({entry.test.method}){effect}."


def _split_plots(facts: DataFacts) -> list[tuple[str, str]]:
    declared_names = set(_names(facts.split)) if facts.split else set()
    order = sorted(facts.slices, key=lambda entry: entry.field not in declared_names)
    return [(_slice_plot(entry), f"{entry.field} in each split.") for entry in order]


def _names(report: SplitReport) -> list[str]:
    return [entry.field for entry in report.balance.get("records", [])]


def _slice_plot(entry: FieldShares) -> str:
    most = 12
    series = {part: shares[:most] for part, shares in entry.shares.items()}
    alt = "; ".join(
        f"{part}: "
        + ", ".join(f"{value} {share:.0%}" for value, share in zip(entry.values[:most], shares, strict=False))
        for part, shares in series.items()
    )
    return svg_plots.grouped_bars(entry.values[:most], series, xlabel="share of the split", alt=alt, percent=True)


def _curve_plot(curve: Curve) -> str:
    rows = [mark.rows for mark in curve.marks]
    grid = [rows[0] * (2 * rows[-1] / rows[0]) ** (step / 40) for step in range(41)]
    series: dict[str, tuple[Sequence[float], Sequence[float]]] = {
        "measured": (rows, [mark.loss for mark in curve.marks]),
        "fitted law, to twice the data": (grid, [curve.predict(x) for x in grid]),
    }
    bands = {"measured": [(mark.low, mark.high) for mark in curve.marks]}
    alt = "; ".join(f"{mark.rows} records: loss {mark.loss:.3f}" for mark in curve.marks)
    return svg_plots.lines(
        series,
        xlabel="train records",
        ylabel="validation loss, nats a token",
        alt=alt,
        bands=bands,
        dashed=["fitted law, to twice the data"],
        log_x=True,
        x_ticks=[*rows, 2 * rows[-1]],
    )

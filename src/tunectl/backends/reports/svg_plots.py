"""Draw small inline SVG plots with matplotlib from plain numbers.

Every function takes ``alt`` (what the picture says, read aloud by screen readers) and returns ``<svg ...>...</svg>`` to be
put inline into a page. Lines and letters are ``currentColor``, so a picture follows the page's light or dark theme; the
colors of the data are Okabe and Ito's, told apart by color-blind people and in gray. Equal numbers give equal bytes.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tunectl.backends.reports.render import show_control
from tunectl.core.optional import import_optional

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999")
"""Okabe and Ito, Color Universal Design (2008); the order keeps neighbors apart."""

WIDTH = 4.6
"""Width in inches: on a phone the letters stay near 10 px."""

PlotInterval = tuple[float, float]
"""Lower and upper end."""

_INK = "#010203"  # stands for currentColor until the SVG is written: matplotlib knows no such color
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tunectl",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _INK,
    "hatch.color": _INK,
    "grid.alpha": 0.12,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
}


class _Canvas:
    """One figure with one pair of axes; ``svg`` is filled when the block ends."""

    def __init__(self, figure: Any, axes: Any) -> None:
        self.figure, self.axes = figure, axes
        self.svg = ""


@contextmanager
def _canvas(height: float, alt: str) -> Iterator[_Canvas]:
    matplotlib = import_optional("matplotlib", extra="data")
    figure_class = import_optional("matplotlib.figure", extra="data").Figure
    with matplotlib.rc_context(_STYLE):
        figure = figure_class(figsize=(WIDTH, height), layout="constrained")
        canvas = _Canvas(figure, figure.subplots())
        yield canvas
        canvas.svg = _write(figure, alt)


def _write(figure: Any, alt: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # A strict Content-Security-Policy forbids inline style; each of these properties is an attribute of SVG as well.
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<[^>]*>", lambda result: _rewrite_tag(result[0]), text)
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    head = f'<svg {spaces} role="img" aria-label="{html.escape(show_control(alt))}" stroke-linejoin="round" stroke-linecap="butt" viewBox='
    # a function, because a backslash in alt would be read as a group
    text = re.sub(r'<svg [^>]*viewBox=("[^"]+")[^>]*>', lambda result: f"{head}{result[1]}>", text, count=1)
    return re.sub(r"\n\s*", "\n", text).strip()


def _rewrite_tag(tag: str) -> str:
    """Return a tag of matplotlib's without inline style; only tags, since a label may read like an attribute."""
    tag = re.sub(r' style="([^"]*)"', lambda result: _write_attributes(result[1]), tag.replace(_INK, "currentColor"))
    # figure_1, axes_1: ids that are the same in every SVG of a page
    return re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", tag)


def _write_attributes(style: str) -> str:
    pairs = (part.partition(":") for part in style.split(";") if part.strip())
    return "".join(f' {name.strip()}="{value.strip()}"' for name, _, value in pairs)


def _legend(axes: Any, names: Sequence[str]) -> None:
    if len(names) > 1:
        axes.legend(loc="best", handlelength=1.2)


def histogram(
    series: Mapping[str, Sequence[float]],
    *,
    xlabel: str,
    alt: str,
    ylabel: str = "records",
    bins: int = 30,
    log_x: bool = False,
) -> str:
    """Return an SVG of distributions on common bins, drawn as outlines over a light fill.

    ``series`` maps a name to its values; with ``log_x``, values of zero or below are left out. ``alt`` is the text for screen readers.
    """
    numpy = import_optional("numpy", extra="data")
    values = {name: numpy.asarray(list(points), dtype=float) for name, points in series.items()}
    if log_x:
        values = {name: points[points > 0] for name, points in values.items()}
    every = numpy.concatenate(list(values.values())) if values else numpy.zeros(0)
    low, high = (every.min(), every.max()) if every.size else (0.0, 1.0)
    if high <= low:
        high = low + 1
    edges = numpy.geomspace(low, high, bins + 1) if log_x else numpy.linspace(low, high, bins + 1)
    with _canvas(2.4, alt) as canvas:
        for name, color in zip(values, _colors(len(values)), strict=True):
            counts, _ = numpy.histogram(values[name], edges)
            canvas.axes.stairs(counts, edges, color=color, fill=True, alpha=0.25)
            canvas.axes.stairs(counts, edges, color=color, label=_plain(name), linewidth=1.4)
        if log_x:
            canvas.axes.set_xscale("log")
        canvas.axes.set(xlabel=_plain(xlabel), ylabel=_plain(ylabel))
        _legend(canvas.axes, list(values))
    return canvas.svg


def bars(
    labels: Sequence[str],
    values: Sequence[float],
    *,
    xlabel: str,
    alt: str,
    intervals: Sequence[PlotInterval] | None = None,
    targets: Sequence[float | None] | None = None,
    percent: bool = False,
) -> str:
    """Return an SVG of horizontal bars, one per label, the first on top; ``values`` and the like are in the order of ``labels``.

    ``intervals`` are drawn as whiskers; ``targets`` as diamonds (None: no mark); ``percent`` shows shares from 0 to 1 as per cent.
    """
    rows = list(range(len(labels)))
    with _canvas(_height(len(labels)), alt) as canvas:
        axes = canvas.axes
        axes.barh(rows, values, color=PALETTE[0], height=0.62, alpha=0.85)
        if intervals is not None:
            axes.errorbar(
                values, rows, xerr=_arms(values, intervals), fmt="none", ecolor=_INK, capsize=2.5, linewidth=1.2
            )
        if targets is not None:
            marks = [(target, row) for target, row in zip(targets, rows, strict=True) if target is not None]
            axes.plot(
                [x for x, _ in marks],
                [y for _, y in marks],
                "D",
                color=PALETTE[5],
                markersize=5,
                label="population",
                linestyle="",
            )
            _legend_above(axes, ["population"])
        _rows(axes, labels, xlabel, percent=percent)
    return canvas.svg


def grouped_bars(
    labels: Sequence[str],
    series: Mapping[str, Sequence[float]],
    *,
    xlabel: str,
    alt: str,
    intervals: Mapping[str, Sequence[PlotInterval]] | None = None,
    percent: bool = False,
) -> str:
    """Return an SVG of grouped horizontal bars: for each label one bar of each series, whose values are in the order of ``labels``."""
    numpy = import_optional("numpy", extra="data")
    rows, thick = numpy.arange(len(labels)), 0.8 / max(1, len(series))
    with _canvas(_height(len(labels) * max(1, len(series) * 0.6), series), alt) as canvas:
        for index, (name, color) in enumerate(zip(series, _colors(len(series)), strict=True)):
            at = rows + (index - (len(series) - 1) / 2) * thick
            canvas.axes.barh(at, series[name], color=color, height=thick * 0.9, label=_plain(name), alpha=0.9)
            if intervals is not None and name in intervals:
                arms = _arms(series[name], intervals[name])
                canvas.axes.errorbar(series[name], at, xerr=arms, fmt="none", ecolor=_INK, capsize=2, linewidth=1)
        _rows(canvas.axes, labels, xlabel, percent=percent)
        _legend_above(canvas.axes, series)
    return canvas.svg


def stacked_bars(labels: Sequence[str], series: Mapping[str, Sequence[float]], *, xlabel: str, alt: str) -> str:
    """Return an SVG of stacked horizontal bars, one per label; each series has one value per label, in the order of ``labels``."""
    rows = list(range(len(labels)))
    with _canvas(_height(len(labels), series), alt) as canvas:
        reached = [0.0] * len(labels)
        for index, ((name, values), color) in enumerate(zip(series.items(), _colors(len(series)), strict=True)):
            hatch = "////" if index >= len(PALETTE) else None  # a color that comes twice
            canvas.axes.barh(
                rows, values, left=reached, color=color, height=0.62, label=_plain(name), alpha=0.9, hatch=hatch
            )
            reached = [before + value for before, value in zip(reached, values, strict=True)]
        _rows(canvas.axes, labels, xlabel, percent=False)
        _legend_above(canvas.axes, series)
    return canvas.svg


def forest(
    labels: Sequence[str],
    centers: Sequence[float],
    intervals: Sequence[PlotInterval],
    *,
    xlabel: str,
    alt: str,
    zero: float | None = 0.0,
) -> str:
    """Return an SVG with one point of ``centers`` and its interval per label, in their order; ``zero`` is the x of a vertical line (None: no line)."""
    rows = list(range(len(labels)))
    with _canvas(_height(len(labels)), alt) as canvas:
        if zero is not None:
            canvas.axes.axvline(zero, color=_INK, linewidth=1, linestyle="--", alpha=0.6)
        arms = _arms(centers, intervals)
        canvas.axes.errorbar(
            centers, rows, xerr=arms, fmt="o", color=PALETTE[0], ecolor=PALETTE[0], capsize=3, linewidth=1.6
        )
        _rows(canvas.axes, labels, xlabel, percent=False)
    return canvas.svg


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    xlabel: str,
    ylabel: str,
    alt: str,
    bands: Mapping[str, Sequence[PlotInterval]] | None = None,
    dashed: Sequence[str] = (),
    log_x: bool = False,
    x_ticks: Sequence[float] | None = None,
) -> str:
    """Return an SVG with a line through the ``(x values, y values)`` of each name.

    ``bands`` are, by name, one interval per x value; names in ``dashed`` are fitted lines, drawn without points.
    ``x_ticks`` are the tick positions on the x axis; None: matplotlib chooses them.
    """
    with _canvas(2.6, alt) as canvas:
        for name, color in zip(series, _colors(len(series)), strict=True):
            x, y = series[name]
            fit = name in dashed
            canvas.axes.plot(
                x,
                y,
                color=color,
                label=_plain(name),
                linestyle="--" if fit else "-",
                marker="" if fit or len(x) > 40 else "o",
            )
            if bands is not None and name in bands:
                low, high = [pair[0] for pair in bands[name]], [pair[1] for pair in bands[name]]
                canvas.axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
        if log_x:
            canvas.axes.set_xscale("log")
        if x_ticks is not None:
            canvas.axes.set_xticks(list(x_ticks), [f"{x:,.0f}" for x in x_ticks])
            canvas.axes.set_xticks([], minor=True)
        canvas.axes.set(xlabel=_plain(xlabel), ylabel=_plain(ylabel))
        _legend(canvas.axes, list(series))
    return canvas.svg


def scatter(
    points: Mapping[str, tuple[float, float]], *, xlabel: str, ylabel: str, alt: str, log_x: bool = False
) -> str:
    """Return an SVG with one labeled point (x, y) per name."""
    with _canvas(2.8, alt) as canvas:
        for name, color in zip(points, _colors(len(points)), strict=True):
            x, y = points[name]
            canvas.axes.plot([x], [y], "o", color=color, markersize=7)
            canvas.axes.annotate(_plain(name), (x, y), xytext=(6, 5), textcoords="offset points", fontsize=8)
        if log_x:
            canvas.axes.set_xscale("log")
        canvas.axes.set(xlabel=_plain(xlabel), ylabel=_plain(ylabel))
        canvas.axes.margins(0.2)
    return canvas.svg


def _legend_above(axes: Any, names: Iterable[str]) -> None:
    """Place the legend above the plot: bars fill their axes to the last corner."""
    columns, _ = _legend_grid(names)
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=columns,
        columnspacing=1.2,
        handlelength=1.0,
        borderaxespad=0.2,
    )


def _legend_grid(names: Iterable[str]) -> tuple[int, int]:
    """Return columns and rows of a legend that is as wide as the picture at most; matplotlib fills it column by column."""
    lengths = [len(_plain(name)) for name in names]
    for rows in range(math.ceil(len(lengths) / 4), len(lengths)):
        longest = [max(lengths[start : start + rows]) for start in range(0, len(lengths), rows)]
        # inches of a mark with its gaps, and of a letter
        if sum(0.34 + 0.066 * letters for letters in longest) <= WIDTH:
            return len(longest), rows
    return 1, len(lengths)


def _colors(count: int) -> list[str]:
    return [PALETTE[index % len(PALETTE)] for index in range(count)]


def _height(rows: float, legend: Iterable[str] = ()) -> float:
    """Return inches for so many rows of bars, below a legend of these names."""
    return 0.75 + 0.24 * max(2.0, rows) + 0.17 * max(0, _legend_grid(legend)[1] - 1)


def _arms(values: Sequence[float], intervals: Sequence[PlotInterval]) -> list[list[float]]:
    """Return the error-bar lengths below and above each value, as matplotlib wants them; a value outside its interval has length 0 there."""
    pairs = list(zip(values, intervals, strict=True))
    return [[max(0.0, v - low) for v, (low, _) in pairs], [max(0.0, high - v) for v, (_, high) in pairs]]


def _rows(axes: Any, labels: Sequence[str], xlabel: str, *, percent: bool) -> None:
    axes.set_yticks(range(len(labels)), [_short(label) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(_plain(xlabel))
    if percent:
        axes.locator_params(axis="x", nbins=6)
        is_whole = all(abs(100 * tick - round(100 * tick)) < 1e-6 for tick in axes.get_xticks())
        decimals = 0 if is_whole else None  # None: as many as the ticks need
        formatter = import_optional("matplotlib.ticker", extra="data").PercentFormatter(1.0, decimals=decimals)
        axes.xaxis.set_major_formatter(formatter)


def _short(label: str, limit: int = 26) -> str:
    text = show_control(label)
    return _plain(text if len(text) <= limit else text[: limit - 1] + "…")


def _plain(text: str) -> str:
    """Return a text as matplotlib shows it letter by letter: a dollar sign would start math mode."""
    return show_control(text).replace("$", r"\$")

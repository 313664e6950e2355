"""Draw the boards without Grafana: their queries answered by a Prometheus, as one page a board.

    python monitoring/preview.py http://127.0.0.1:9090 screenshots         # screenshots/service.html, quality.html, drift.html, retraining.html

Standard library only. It understands what our boards use (stat, timeseries, state-timeline, table, bargauge, text) and stops with
an error at anything else. It is no Grafana: what it proves is that each query is answered, and about what the answer looks like.
"""

from __future__ import annotations

import argparse
import json
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from preview_chart import COLORS, PALETTE, Span, Trace, chart, number, timeline

BOARDS = Path(__file__).with_name("grafana") / "boards"
POINTS = 240
"""Of a series over the whole range."""
SCRAPE = 15
"""Seconds; scrape_interval of prometheus.yml."""
UNIT, ROW = 50, 34
"""Pixels of a column and of a row of Grafana's grid, which has 24 columns."""
LABEL = re.compile(r"\{\{\s*(\w+)\s*\}\}")


@dataclass(frozen=True)
class Series:
    """One answer of Prometheus."""

    labels: dict[str, str]
    points: list[tuple[float, float]]
    """Seconds since 1970 and value, oldest first."""
    target: str
    """refId of its query."""

    @property
    def last(self) -> float:
        """The newest value."""
        return self.points[-1][1]


@dataclass
class Prometheus:
    """A Prometheus, and the span of time that is asked for."""

    url: str
    span: Span
    links: dict[str, str] = field(default_factory=dict)
    """Values of the variables of the boards."""

    @property
    def step(self) -> int:
        """Seconds between points."""
        return max(SCRAPE, round((self.span.end - self.span.start) / POINTS))

    def ask(self, expr: str, *, target: str = "A", instant: bool = False) -> list[Series]:
        """Return the series that an expression gives, with Grafana's variables filled in.

        Raises  RuntimeError with Prometheus' own words where it refuses.
        """
        expr = expr.replace("$__rate_interval", f"{max(4 * SCRAPE, self.step + SCRAPE)}s")
        expr = expr.replace("$__interval", f"{self.step}s")
        parameters: dict[str, Any] = {"query": expr}
        parameters |= (
            {"time": self.span.end} if instant else {"start": self.span.start, "end": self.span.end, "step": self.step}
        )
        path = "query" if instant else "query_range"
        request = urllib.request.Request(f"{self.url}/api/v1/{path}", urllib.parse.urlencode(parameters).encode())
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                result = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{expr}: {error.read().decode(errors='replace')}") from error
        return [Series(item["metric"], _points(item), target) for item in result]

    def fill_variables(self, text: str) -> str:
        """Return a text with the variables of the board."""
        for name, value in self.links.items():
            text = text.replace("${" + name + "}", value)
        return text


def _points(one: dict[str, Any]) -> list[tuple[float, float]]:
    values = one["values"] if "values" in one else [one["value"]]
    return [(float(index), float(value)) for index, value in values]


def name_series(series: Series, target: dict[str, Any]) -> str:
    """Return what the legend calls a series."""
    template = target.get("legendFormat", "")
    if template:
        return LABEL.sub(lambda result: series.labels.get(result[1], ""), template)
    return series.labels.get("__name__", "") or ", ".join(series.labels.values()) or "value"


def answers(panel: dict[str, Any], prometheus: Prometheus) -> list[tuple[str, Series]]:
    """All series of a panel with their names."""
    result = []
    for target in panel.get("targets", []):
        instant = target.get("instant", False) or panel["type"] == "stat"
        answers = prometheus.ask(target["expr"], target=target["refId"], instant=instant)
        result += [(name_series(series, target), series) for series in answers]
    return result


def map_value(defaults: dict[str, Any], value: float) -> tuple[str, str]:
    """Text and color of a value, by mappings and thresholds."""
    for mapping in defaults.get("mappings", []):
        hit = mapping["options"].get(f"{value:g}")
        if hit:
            return hit["text"], COLORS[hit["color"]]
    steps = defaults.get("thresholds", {}).get("steps", [])
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return number(value, defaults.get("unit", ""), defaults.get("decimals")), COLORS[reached[-1] if reached else "text"]


def stat(panel: dict[str, Any], result: Sequence[tuple[str, Series]], _: Prometheus) -> str:
    """Large numbers, or names."""
    defaults, mode = panel["fieldConfig"]["defaults"], panel["options"]["textMode"]
    cells = []
    for name, series in result:
        text, color = map_value(defaults, series.last)
        if mode == "name":
            text, small = name[:24], ""
        else:
            small = name if mode == "value_and_name" or len(result) > 1 else ""
        back = panel["options"]["colorMode"] == "background"
        style = f"background:{color};color:#111217" if back else f"color:{color}"
        cells.append(f'<div class="stat" style="{style}"><b>{escape(text)}</b><i>{escape(small)}</i></div>')
    return f'<div class="stats">{"".join(cells)}</div>'


def series_chart(panel: dict[str, Any], result: Sequence[tuple[str, Series]], prometheus: Prometheus) -> str:
    """Lines or bars over time."""
    defaults = panel["fieldConfig"]["defaults"]
    dashed = [
        item["matcher"]["options"] for item in panel["fieldConfig"]["overrides"] if item["matcher"]["id"] == "byRegexp"
    ]
    fixed = {
        item["matcher"]["options"]: COLORS[part["value"]["fixedColor"]]
        for item in panel["fieldConfig"]["overrides"]
        for part in item["properties"]
        if part["id"] == "color"
    }
    traces = [
        Trace(
            name,
            series.points,
            fixed.get(name, PALETTE[index % len(PALETTE)]),
            any(re.match(item, name) for item in dashed),
        )
        for index, (name, series) in enumerate(result)
    ]
    width, height = _size(panel)
    return chart(traces, defaults, prometheus.span, prometheus.step, width, height) + _legend(traces)


def states(panel: dict[str, Any], result: Sequence[tuple[str, Series]], prometheus: Prometheus) -> str:
    """Return a row a series, colored by its value."""
    defaults = panel["fieldConfig"]["defaults"]
    rows = [(name, [(index, *map_value(defaults, value)) for index, value in series.points]) for name, series in result]
    width, height = _size(panel)
    return timeline(rows, prometheus.span, prometheus.step, width, height)


def table(panel: dict[str, Any], result: Sequence[tuple[str, Series]], prometheus: Prometheus) -> str:
    """Rows of labels and values; answers of several queries are merged where their labels agree."""
    steps = {item["id"]: item["options"] for item in panel.get("transformations", [])}
    organized = steps.get("organize", {})
    hidden, renamed = organized.get("excludeByName", {}), organized.get("renameByName", {})
    rows: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    several = "merge" in steps
    for _, series in result:
        labels = {name: value for name, value in sorted(series.labels.items()) if name not in hidden}
        row = rows.setdefault(tuple(labels.items()), dict(labels))
        column = f"Value #{series.target}" if several else "Value"
        if column not in hidden:
            row[renamed.get(column, column)] = f"{series.last:.4g}"
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    links = {
        item["matcher"]["options"]: part["value"][0]["url"]
        for item in panel["fieldConfig"]["overrides"]
        for part in item["properties"]
        if part["id"] == "links"
    }

    def cell(name: str, value: str) -> str:
        if name in links:
            url = prometheus.fill_variables(links[name]).replace("${__value.text}", value)
            return f'<td><a href="{escape(url)}">{escape(value)}</a></td>'
        return f"<td>{escape(value)}</td>"

    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(cell(n, row.get(n, '')) for n in columns)}</tr>" for row in rows.values())
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def bars(panel: dict[str, Any], result: Sequence[tuple[str, Series]], _: Prometheus) -> str:
    """Return a bar a series, between min and max."""
    defaults = panel["fieldConfig"]["defaults"]
    low, high = defaults.get("min", 0), defaults.get("max", 1)
    lines = []
    for name, series in result:
        text, color = map_value(defaults, series.last)
        part = 100 * (min(max(series.last, low), high) - low) / (high - low)
        lines.append(
            f'<div class="bar"><span>{escape(name)}</span><div><i style="width:{part:.1f}%;background:{color}"></i></div>'
            f"<b>{escape(text)}</b></div>"
        )
    return "".join(lines)


def text(panel: dict[str, Any], _series: Sequence[tuple[str, Series]], prometheus: Prometheus) -> str:
    """Return a list in Markdown: links and code are all that it knows."""
    lines = escape(prometheus.fill_variables(panel["options"]["content"]), quote=False).split("\n")
    body = "".join(f"<li>{line.removeprefix('- ')}</li>" for line in lines)
    body = re.sub(r"\[([^\]]+)\]\(([^)]+)\)", r'<a href="\2">\1</a>', body)
    return "<ul>" + re.sub(r"`([^`]+)`", r"<code>\1</code>", body) + "</ul>"


DRAWN = {
    "stat": stat, "timeseries": series_chart, "state-timeline": states, "table": table, "bargauge": bars, "text": text,
}  # fmt: skip


def _size(panel: dict[str, Any]) -> tuple[int, int]:
    """Pixels that a chart has inside its panel."""
    return panel["gridPos"]["w"] * UNIT - 26, panel["gridPos"]["h"] * ROW - 66


def _legend(traces: Iterable[Trace]) -> str:
    keys = "".join(f'<span><i style="background:{trace.color}"></i>{escape(trace.name)}</span>' for trace in traces)
    return f'<div class="legend">{keys}</div>'


def panel_html(panel: dict[str, Any], prometheus: Prometheus) -> str:
    """One panel at its place; class ``empty`` where no query has an answer."""
    grid = panel["gridPos"]
    place = f"grid-column:{grid['x'] + 1}/span {grid['w']};grid-row:{grid['y'] + 1}/span {grid['h']}"
    if panel["type"] == "row":
        return f'<h2 style="{place}">{escape(panel["title"])}</h2>'
    result = answers(panel, prometheus)
    empty = not result and panel["type"] != "text"
    inside = '<p class="none">No data</p>' if empty else DRAWN[panel["type"]](panel, result, prometheus)
    return (
        f'<section class="panel{" empty" if empty else ""}" data-panel="{panel["id"]}" style="{place}" '
        f'title="{escape(panel.get("description", ""))}"><h3>{escape(panel["title"])}</h3>{inside}</section>'
    )


def page(board: dict[str, Any], prometheus: Prometheus) -> str:
    """Return a board as a page of its own."""
    marks = []
    for item in board["annotations"]["list"]:
        for series in prometheus.ask(item["expr"]):
            name = LABEL.sub(lambda result, labels=series.labels: labels.get(result[1], ""), item["titleFormat"])
            marks += [
                (first, last, name, COLORS[item["iconColor"]]) for first, last in _regions(series, prometheus.step)
            ]
    marked = Prometheus(
        prometheus.url, Span(prometheus.span.start, prometheus.span.end, tuple(marks)), prometheus.links
    )
    links = "".join(
        f'<a href="{escape(marked.fill_variables(item["url"]))}">{escape(item["title"])}</a>'
        for item in board["links"]
        if "url" in item
    )
    panels = "\n".join(panel_html(item, marked) for item in board["panels"])
    title, words = escape(board["title"]), escape(board["description"])
    style = Path(__file__).with_name("preview.css").read_text(encoding="utf-8")
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title><style>{style}</style>\n'
        f'<header><h1>{title}</h1><p>{words}</p><nav>{links}</nav></header>\n<main style="grid-template-columns:repeat(24,{UNIT}px);'
        f'grid-auto-rows:{ROW}px">\n{panels}\n</main></html>\n'
    )


def _regions(series: Series, step: int) -> list[tuple[float, float]]:
    """Spans in which a series is above zero without a gap."""
    result: list[tuple[float, float]] = []
    for index, value in series.points:
        if value <= 0:
            continue
        if result and index - result[-1][1] <= 1.5 * step:
            result[-1] = (result[-1][0], index)
        else:
            result.append((index, index))
    return result


def hours(board: dict[str, Any]) -> int:
    """How far back a board looks."""
    return int(board["time"]["from"].removeprefix("now-").removesuffix("h"))


def write(url: str, folder: Path, end: float) -> list[Path]:
    """Draw every board into ``folder``, as of ``end`` (seconds since 1970)."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = []
    for path in sorted(BOARDS.glob("*.json")):
        board = json.loads(path.read_text(encoding="utf-8"))
        prometheus = Prometheus(url.rstrip("/"), Span(end - 3600 * hours(board), end))
        links = prometheus.ask("tunectl:link:info", instant=True)
        prometheus.links = {item.labels["name"]: item.labels["url"] for item in links}
        target = folder / f"{path.stem}.html"
        target.write_text(page(board, prometheus), encoding="utf-8")
        pages.append(target)
    return pages


def main() -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="of a Prometheus that scrapes the three programs and has our rules")
    parser.add_argument("folder", type=Path, help="where the pages go")
    parser.add_argument(
        "--end", type=float, default=None, metavar="SECONDS", help="since 1970; now, where it is left out"
    )
    args = parser.parse_args()
    for path in write(args.url, args.folder, args.end or time.time()):
        print(path)


if __name__ == "__main__":
    main()

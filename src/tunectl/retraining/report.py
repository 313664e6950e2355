"""The report of a retrain, from its records: reason, data, changes, gate, canary, decision. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct, field

from tunectl.canary.canary_store import CanaryRecord
from tunectl.canary.sequential_test import CanaryResult
from tunectl.retraining.state_machine import RetrainRun

Rows = list[tuple[str, ...]]


class ReportSection(Struct, frozen=True):
    """One section of the report: a table with its title, and a curve as SVG where there is one."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: Rows
    curve: str = ""
    """A plot as SVG; empty: none."""


class RetrainReport(Struct, frozen=True):
    """Content of the report of one retrain, for a page or a terminal."""

    id: str
    state: str
    why: str
    end: str
    """The reason of the newest step."""
    began: str
    sections: list[ReportSection] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether the run ended with a new champion."""
        return self.state == "promoted"


def build_report(run: RetrainRun, canary: CanaryRecord | None = None) -> RetrainReport:
    """Return the report of a run so far; ``canary`` is the record of its canary, if it has one."""
    sections = [
        ReportSection("why", "Why", ("what", "value"), list(_why(run))),
        ReportSection("data", "What data", ("what", "value"), list(_data(run))),
        ReportSection("change", "What changed", ("what", "value"), list(_change(run))),
        *_gate(run),
        *_canary(canary),
        ReportSection("steps", "Steps", ("at (UTC)", "state", "after", "why"), list(_steps(run))),
    ]
    last = run.steps[-1]
    return RetrainReport(
        run.id,
        run.state,
        run.trigger.message,
        last.message,
        f"{run.steps[0].at:%Y-%m-%d %H:%M}",
        [section for section in sections if section.rows],
    )


def _why(run: RetrainRun) -> Iterator[tuple[str, ...]]:
    trigger, facts = run.trigger, run.facts("proposed")
    yield "started by", f"{trigger.kind}{f' ({trigger.author})' if trigger.author else ''}: {trigger.message}"
    if trigger.facts.get("description"):
        yield "the alert said", str(trigger.facts["description"])
    window = facts.get("window")
    if window:
        yield "drift window", f"{window['id']}, {window['since'][:16]} to {window['until'][:16]}, {window['rows']} rows"
        if "evidence" in window:
            yield "evidence", f"{window['evidence']:.1f} of {window.get('evidence_required', 3.0):.1f}"
            yield "what", str(window.get("reason", ""))
        else:  # a run of version 0.1
            yield "windows in a row", str(window.get("consecutive", ""))
        for name, item in (window.get("signals") or {}).items():
            if item.get("shifted"):
                yield f"signal {name}", _signal(item)
        for part in (window.get("segments") or [])[:5]:
            yield "more of", f"{part['name']}: {part['window']:.0%}, was {part['reference']:.0%}"
    if "proposal" in facts:
        yield "proposed as it is", str(facts["proposal"])
    yield "champion then", str(facts.get("champion") or "none")
    yield "key", run.key


def _signal(values: dict[str, Any]) -> str:
    parts = [
        f"{name} {values[key]:.3g}"
        for name, key in (
            ("p", "p_value"),
            ("adjusted p", "adjusted_p_value"),
            ("effect", "effect"),
            ("effect floor", "effect_floor"),
        )
        if values.get(key) is not None
    ]
    return ", ".join(parts)


def _data(run: RetrainRun) -> Iterator[tuple[str, ...]]:
    frozen = run.facts("proposed").get("snapshot")
    if frozen:
        yield (
            "snapshot",
            f"{frozen['id']}, {frozen['inferences']} inferences with feedback, {frozen['feedback']} feedback records",
        )
    result = run.facts("training") or run.facts("awaiting_approval").get("data") or run.facts("insufficient")
    for name, title in (
        ("examples", "rows to learn"),
        ("new_examples", "of them new"),
        ("edits", "written by people"),
        ("annotators", "people"),
        ("held_out", "kept for the gate"),
    ):
        if name in result:
            yield title, str(result[name])
    for reason, count in (result.get("left_out") or {}).items():
        yield f"left out: {reason}", str(count)


def _change(run: RetrainRun) -> Iterator[tuple[str, ...]]:
    result = run.facts("evaluating") or run.facts("rejected")
    for name in ("release", "branch", "commit"):
        if name in result:
            yield name, str(result[name])
    for path in (result.get("changed") or [])[:20]:
        yield "file", str(path)
    obstacle = run.facts("promoted").get("left")
    if obstacle:
        yield "branch not fast-forwarded", str(obstacle)
    for name, value in (result.get("metrics") or {}).items():
        yield f"metric {name}", f"{value:g}"


def _gate(run: RetrainRun) -> Iterator[ReportSection]:
    result = next((step.facts for step in run.steps if "parts" in step.facts), None)
    if result is None:
        return
    rows: Rows = [
        (
            part["name"],
            f"{part['items']}",
            _number(part.get("champion")),
            _number(part.get("challenger")),
            _format_signed(part.get("difference")),
            f"{_format_signed(part.get('low'))} to {_format_signed(part.get('high'))}",
            _number(part.get("sees")),
        )
        for part in result["parts"]
    ]
    columns = ("set", "items", "champion", "challenger", "difference", "interval", "sees")
    yield ReportSection("gate", f"Gate: {result['verdict']}", columns, rows)
    leaked = f"{result.get('leaked', 0)} items left out: the challenger has learned them"
    golden = [("golden set", f"version {result['version']}", leaked)] if result.get("version") else []
    bounds = [
        (item["name"], f"{item['value']:g}", f"{'at most' if item['most'] else 'at least'} {item['bound']:g}")
        for item in result.get("floors") or []
    ]
    checks = [
        (item["name"], "holds" if item["holds"] else "does not hold", item["said"])
        for item in result.get("checks") or []
    ]
    yield ReportSection("bounds", "Floors and checks", ("what", "value", "bound"), [*golden, *bounds, *checks])


def _canary(canary: CanaryRecord | None) -> Iterator[ReportSection]:
    if canary is None:
        return
    rows: Rows = [
        ("challenger", f"{canary.challenger}, {canary.rules.share:.0%} of the identities"),
        ("metric", canary.metric),
        ("began", f"{canary.started_at:%Y-%m-%d %H:%M}"),
    ]
    if canary.ended_at is not None:
        rows.append(("ended", f"{canary.ended_at:%Y-%m-%d %H:%M}: {canary.decision}"))
    curve = ""
    if canary.reading is not None:
        rows += list(describe_results(canary.reading))
        curve = _render_curve(canary.reading)
    yield ReportSection("canary", "Canary test", ("what", "value"), rows, curve)


def describe_results(reading: CanaryResult) -> Iterator[tuple[str, str]]:
    """Yield (name, value as text) rows for the result of one evaluation of a canary."""
    yield "champion", f"{_number(reading.champion)} ({reading.champion_units} identities)"
    yield "challenger", f"{_number(reading.challenger)} ({reading.challenger_units} identities)"
    if reading.low is not None and reading.high is not None:
        yield (
            "difference",
            f"{reading.low:+.3f} to {reading.high:+.3f} (confidence sequence, valid at every evaluation)",
        )
    for name, value in reading.evidence.items():
        yield f"evidence: {name}", f"{min(value, 1e6):.3g}"
    yield "decision", f"{reading.decision}: {reading.reason}"


def _steps(run: RetrainRun) -> Iterator[tuple[str, ...]]:
    started = run.steps[0].at
    for step in run.steps:
        yield (
            f"{step.at:%Y-%m-%d %H:%M:%S}",
            step.state,
            _format_duration((step.at - started).total_seconds()),
            step.message,
        )


def _format_duration(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3g}"


def _format_signed(value: float | None) -> str:
    return "n/a" if value is None else f"{value:+.2f}"


def _render_curve(reading: CanaryResult, width: int = 640, height: int = 180) -> str:
    """Return the difference of a canary with its confidence sequence over the identities, as an SVG; empty where there are fewer than two points."""
    points = reading.curve
    if len(points) < 2:
        return ""
    left, right, top, bottom = 46, width - 10, 10, height - 26
    most = max(point.units for point in points)
    reach = max(
        0.1, *(min(1.0, abs(value)) for point in points[len(points) // 4 :] for value in (point.low, point.high))
    )

    def x(units: float) -> float:
        return left + (right - left) * units / most

    def y(value: float) -> float:
        return (top + bottom) / 2 - (bottom - top) / 2 * max(-1.0, min(1.0, value / reach))

    band = _path([(x(p.units), y(p.high)) for p in points] + [(x(p.units), y(p.low)) for p in reversed(points)])
    line = _path([(x(p.units), y(p.difference)) for p in points])
    labels = "".join(
        f'<text x="{left - 6}" y="{y(value) + 4:.0f}" text-anchor="end" font-size="11" fill="currentColor">{value:+.2f}</text>'
        for value in (reach, 0.0, -reach)
    )
    mark = ""
    if reading.at is not None:
        mark = f'<line x1="{x(reading.at):.1f}" x2="{x(reading.at):.1f}" y1="{top}" y2="{bottom}" stroke="#c0392b" stroke-dasharray="4 3"/>'
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Difference of the outcomes, challenger minus champion">'
        f'<path d="{band} Z" fill="#2980b9" fill-opacity="0.18"/><path d="{line}" fill="none" stroke="#2980b9" stroke-width="2"/>'
        f'<line x1="{left}" x2="{right}" y1="{y(0):.1f}" y2="{y(0):.1f}" stroke="currentColor" stroke-opacity="0.5"/>{mark}{labels}'
        f'<text x="{right}" y="{height - 8}" text-anchor="end" font-size="11" fill="currentColor">{most} identities</text></svg>'
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M " + " L ".join(f"{x:.1f} {y:.1f}" for x, y in points)

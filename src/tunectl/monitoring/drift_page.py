"""The monitor's own pages: all windows, and one of them with what moved. Texts in them were redacted before they were kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tunectl.artifacts.records import DriftSignal, DriftWindow, truncate
from tunectl.backends.reports import render
from tunectl.monitoring.signals import MonitoredInference

LENGTH = 300
"""Characters of a text."""
SHOWN = 200
"""Newest windows on the page."""


def render_index(project: str, windows: Sequence[DriftWindow], reports: Collection[str]) -> str:
    """Return the page of all windows; ``windows`` oldest first, ``reports`` the files that are still there."""
    newest = windows[-1] if windows else None
    return render.render(
        "drift.html",
        project=project,
        summary=f"{newest.verdict}: {newest.reason}" if newest else "no window was closed yet",
        good=newest is not None and newest.verdict == "ok",
        tiles=[
            (render.number(len(windows)), "windows"),
            (sum(one.verdict == "drift" for one in windows), "drift"),
            (evidence_text(newest) if newest else "0", "evidence"),
        ],
        columns=["window", "from", "to (UTC)", "rows", "verdict", "evidence", "what", ""],
        rows=[(one, _window(one), one.report in reports) for one in reversed(windows[-SHOWN:])],
        sections=[("windows", "Windows")],
    )


def evidence_text(one: DriftWindow) -> str:
    """Return the evidence of a window, and what makes a drift."""
    return f"{one.evidence:.1f} of {one.evidence_required:.1f}"


def _window(one: DriftWindow) -> list[object]:
    return [
        f"{one.since:%Y-%m-%d %H:%M}",
        f"{one.until:%Y-%m-%d %H:%M}",
        render.number(one.rows),
        one.verdict,
        evidence_text(one),
        one.reason,
    ]


def render_window(
    project: str, one: DriftWindow, rows: Mapping[str, MonitoredInference], reports: Collection[str]
) -> str:
    """Return the page of one window; ``rows`` are its inferences by id, as far as they still are in the inference log, ``reports`` as above."""
    return render.render(
        "drift_window.html",
        project=project,
        window=one,
        reported=one.report in reports,
        summary=f"{one.verdict}: {one.reason}",
        good=one.verdict == "ok",
        tiles=[
            (render.number(one.rows), "rows"),
            (evidence_text(one), "evidence"),
            (one.release[:8], "release"),
            (one.reference[:16], "prompts compared with"),
        ],
        columns=[
            "signal",
            "method",
            "rows",
            "p",
            "p of 3 and 9 windows",
            "adjusted",
            "effect",
            "floor",
            "score / threshold",
            "p, window before",
            "moved",
        ],
        rows=signal_rows(one),
        slices=[
            (
                each.name,
                render.percent(each.window),
                render.percent(each.reference),
                _join_previews(each.exemplars, rows),
            )
            for each in one.segments
        ],
        exemplars=[
            (name, truncate(rows[name].prompt or "", LENGTH), truncate(rows[name].answer or "", LENGTH))
            for name in one.exemplars
            if name in rows
        ],
        sections=[("signals", "Signals"), ("slices", "What there is more of"), ("exemplars", "Examples")],
    )


def signal_rows(window: DriftWindow) -> list[list[object]]:
    """Return the signals of a window as a table.

    Name, method, rows, p, p of several windows together, adjusted, effect, floor, score and threshold, p against the window before, moved or why not.
    """
    return [_signal_row(one, window.previous_p_values.get(one.name)) for one in window.signals.values()]


def _signal_row(one: DriftSignal, last: float | None) -> list[object]:
    before = "" if last is None else f"{last:.3f}"
    if one.p_value is None:
        return [one.name, one.method, one.n, "", "", "", "", "", "", before, one.reason]
    pooled = ", ".join(f"{each.p_value:.2g}" for each in one.pooled)
    numbers = [one.effect, one.effect_floor]
    shown = [
        f"{one.p_value:.2g}", pooled, "" if one.adjusted_p_value is None else f"{one.adjusted_p_value:.2g}",
        *("" if value is None else f"{value:.4f}" for value in numbers),
    ]  # fmt: skip
    statistic = f"{one.score:.3f} / {one.threshold:.3f}"
    return [one.name, one.method, one.n, *shown, statistic, before, "moved" if one.shifted else ""]


def _join_previews(names: Sequence[str], rows: Mapping[str, MonitoredInference]) -> str:
    return " · ".join(truncate(rows[name].prompt or "", 80) for name in names if name in rows)

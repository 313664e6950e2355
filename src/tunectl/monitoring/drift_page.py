"""The monitor's own pages: all windows, and one window in detail. Texts in them were redacted before they were stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tunectl.artifacts.records import DriftSignal, DriftWindow, truncate
from tunectl.backends.reports import render
from tunectl.monitoring.signals import MonitoredInference

LENGTH = 300
"""Characters of a text that are shown."""
SHOWN = 200
"""Number of newest windows on the page."""


def render_index(project: str, windows: Sequence[DriftWindow], reports: Collection[str]) -> str:
    """Return the HTML page of all windows; ``windows`` oldest first, ``reports`` the names of the report files that still exist."""
    newest = windows[-1] if windows else None
    return render.render(
        "drift.html",
        project=project,
        summary=f"{newest.verdict}: {newest.reason}" if newest else "no window was closed yet",
        good=newest is not None and newest.verdict == "ok",
        bad=newest is not None and newest.verdict == "drift",
        tiles=[
            (render.number(len(windows)), "windows"),
            (sum(window.verdict == "drift" for window in windows), "drift"),
            (evidence_text(newest) if newest else "0", "evidence"),
        ],
        columns=["window", "from", "to (UTC)", "rows", "verdict", "evidence", "what", ""],
        rows=[(window, _window(window), window.report in reports) for window in reversed(windows[-SHOWN:])],
        sections=[("windows", "Windows")],
    )


def evidence_text(window: DriftWindow) -> str:
    """Return a window's evidence and the threshold for drift as text, both -log10 of p: ``3.2 of 4.1``."""
    return f"{window.evidence:.1f} of {window.evidence_required:.1f}"


def _window(window: DriftWindow) -> list[object]:
    return [
        f"{window.since:%Y-%m-%d %H:%M}",
        f"{window.until:%Y-%m-%d %H:%M}",
        render.number(window.rows),
        window.verdict,
        evidence_text(window),
        window.reason,
    ]


def render_window(
    project: str, window: DriftWindow, rows: Mapping[str, MonitoredInference], reports: Collection[str]
) -> str:
    """Return the HTML page of one window.

    ``rows`` are its inferences by id that are still in the inference log, ``reports`` the names of the report files that still exist.
    """
    return render.render(
        "drift_window.html",
        project=project,
        window=window,
        reported=window.report in reports,
        summary=f"{window.verdict}: {window.reason}",
        good=window.verdict == "ok",
        bad=window.verdict == "drift",
        tiles=[
            (render.number(window.rows), "rows"),
            (evidence_text(window), "evidence"),
            (window.release[:8], "release"),
            (window.reference[:16], "prompts compared with"),
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
            "shifted",
        ],
        rows=signal_rows(window),
        slices=[
            (
                each.name,
                render.percent(each.window),
                render.percent(each.reference),
                _join_previews(each.exemplars, rows),
            )
            for each in window.segments
        ],
        exemplars=[
            (name, truncate(rows[name].prompt or "", LENGTH), truncate(rows[name].answer or "", LENGTH))
            for name in window.exemplars
            if name in rows
        ],
        sections=[("signals", "Signals"), ("slices", "What there is more of"), ("exemplars", "Examples")],
    )


def signal_rows(window: DriftWindow) -> list[list[object]]:
    """Return the signals of a window as a table.

    Name, method, rows, p, pooled p, adjusted p, effect, floor, score and threshold, p against the previous window, shifted or why not.
    """
    return [_signal_row(signal, window.previous_p_values.get(signal.name)) for signal in window.signals.values()]


def _signal_row(signal: DriftSignal, last: float | None) -> list[object]:
    before = "" if last is None else f"{last:.3f}"
    if signal.p_value is None:
        return [signal.name, signal.method, signal.n, "", "", "", "", "", "", before, signal.reason]
    pooled = ", ".join(f"{each.p_value:.2g}" for each in signal.pooled)
    numbers = [signal.effect, signal.effect_floor]
    figures = [
        f"{signal.p_value:.2g}", pooled, "" if signal.adjusted_p_value is None else f"{signal.adjusted_p_value:.2g}",
        *("" if value is None else f"{value:.4f}" for value in numbers),
    ]  # fmt: skip
    statistic = f"{signal.score:.3f} / {signal.threshold:.3f}"
    return [signal.name, signal.method, signal.n, *figures, statistic, before, "shifted" if signal.shifted else ""]


def _join_previews(names: Sequence[str], rows: Mapping[str, MonitoredInference]) -> str:
    return " · ".join(truncate(rows[name].prompt or "", 80) for name in names if name in rows)

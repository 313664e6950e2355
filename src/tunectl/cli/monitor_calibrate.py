"""Calibrate drift detection: false alarms and power of this project's references, and a backtest on past traffic.

Called by `tunectl monitor`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.storage import open_inference_log
from tunectl.cli import time_args
from tunectl.core.errors import UsageError

if TYPE_CHECKING:
    from tunectl.config.schema.monitor import MonitorSettings
    from tunectl.monitoring.self_calibration import CalibrationRow, LogprobPower
    from tunectl.monitoring.window_size import DetectionRule

COLUMNS = (
    "change", "side", "rows", "reference", "signals alone", "verdict by the 3rd window", "by the 9th", "delay, rows",
    "rows a window needs",
)  # fmt: skip
CHANGE_TITLES = {
    "nothing": "nothing (false alarms)",
    "topic_15": "15 % from one topic",
    "topic_30": "30 % from one topic",
    "tone_20": "20 points less friendly",
    "tone_40": "40 points less friendly",
}


def calibrate(args: argparse.Namespace, settings: MonitorSettings, layout: ProjectPaths) -> int:
    """Draw windows from the references, test them, and print false alarms and power; return the exit code.

    Raises  UsageError where there is no reference yet, and for too few sequences or rows.
    """
    from tunectl.artifacts import atomic_io
    from tunectl.backends.system import terminal
    from tunectl.core import progress
    from tunectl.monitoring import factory, self_calibration

    if args.trials < 20:
        raise UsageError(
            f"--trials {args.trials}: at least 20 are needed",
            hint="400 sequences measure a rate of 5 % to within 2 percentage points",
        )
    rows = settings.monitor.window.max_rows if args.rows is None else args.rows
    if rows < settings.monitor.window.min_rows:
        raise UsageError(f"--rows {rows}: must be at least monitor.window.min_rows, {settings.monitor.window.min_rows}")
    with open_inference_log.open_existing(settings.inference_log, layout) as store:
        monitor = factory.build_monitor(settings, layout, store)
        champion = monitor.releases.champion()
        if champion is None:
            raise UsageError("no release is champion", hint="promote one: tunectl release promote ID")
        baselines, missing = monitor.baselines(champion.release)
    if not baselines:
        raise UsageError(f"no reference: {'; '.join(missing.values())}", hint="tunectl monitor set-reference ID")
    pools = {side: baseline.columns for side, baseline in baselines.items()}
    sizes = {side: len(baseline.rows) for side, baseline in baselines.items()}
    rule, share = factory.detection_rule(settings), settings.inference_log.logprob_share
    with progress.bar("drawing windows", total=len(pools) * len(self_calibration.CHANGES) * args.trials) as bar:
        result = list(
            self_calibration.calibrate(
                pools, sizes, rule, rows, args.trials, settings.seed, logprob_share=share, each=bar.advance
            )
        )
    required = self_calibration.min_reference_rows(rule)
    for side in pools.keys() - {item.side for item in result}:
        missing[side] = f"{side}s: the reference has {sizes[side]} rows, {required} are needed"
    calibration = self_calibration.Calibration(
        at=datetime.now(UTC).isoformat(),
        release=champion.release,
        references={str(side): baseline.name for side, baseline in baselines.items()},
        embedder=monitor.examiner.tools.embedder.name,
        figures=result,
        logprob=self_calibration.measure_logprob_power(pools.get("answer"), rule, rows, share),
    )
    atomic_io.write_json(layout.calibration, calibration)
    if args.json:
        terminal.print_json(atomic_io.read_json(layout.calibration))
        return 0
    if result:
        terminal.table("", COLUMNS, [_row(item) for item in result])
        terminal.print_line(_smallest(rule, rows, min(sizes.values())))
    if calibration.logprob is not None:
        terminal.print_line(_describe_logprob_power(calibration.logprob, rows))
    for reason in missing.values():
        terminal.print_line(f"not measured: {reason}")
    return 0


def _describe_logprob_power(item: LogprobPower, rows: int) -> str:
    share = f"{item.rows:,} of {rows:,} rows of a window have log-probabilities (inference_log.logprob_share {item.share:g})"
    if item.ninth is None:
        side, count = ("reference", item.reference) if item.reference < item.min_rows else ("window", item.rows)
        return f"{share}: too few for the signal mean_logprob, even of 9 windows together: {count:,} rows in the {side}, {item.min_rows:,} are needed"
    third = "never" if item.third is None else f"{item.third:.0%}"
    return (
        f"{share}: a change of {item.effect} standard deviations in mean_logprob is seen with a chance of {third} by the 3rd window, "
        f"{item.ninth:.0%} by the 9th ({item.ninth_of_all or 0:.0%} if all had them); 80 % are reached from {item.min_effect or 0:.2f} on"
    )


def _row(calibration_row: CalibrationRow) -> tuple[object, ...]:
    best = sorted(calibration_row.alone.items(), key=lambda each: -each[1])[:3]
    return (
        CHANGE_TITLES[calibration_row.change],
        calibration_row.side,
        calibration_row.rows,
        calibration_row.reference,
        ", ".join(f"{name} {share:.0%}" for name, share in best),
        _format_interval(calibration_row.third),
        _format_interval(calibration_row.ninth),
        ""
        if calibration_row.change == "nothing"
        else _rows_or_more(calibration_row.delay_rows, 9 * calibration_row.rows),
        ""
        if calibration_row.change == "nothing"
        else _rows_or_more(calibration_row.rows_needed, 4 * calibration_row.rows),
    )


def _rows_or_more(rows: int | None, maximum: int) -> str:
    return f"more than {maximum:,}" if rows is None else f"{rows:,}"


def _smallest(rule: DetectionRule, rows: int, reference: int) -> str:
    """Return the rows that a window needs to detect the declared smallest change, by the third and by the ninth window."""
    from tunectl.monitoring import window_size

    message = f"a change of {rule.min_effect} standard deviations in any one signal (monitor.rule.min_effect)"
    third, ninth = (window_size.min_window_rows(rule, reference, count) for count in (3, 9))
    if ninth is None:
        least = window_size.min_reference_rows(rule)
        return f"{message} is never seen with {reference:,} rows of reference: {least:,} are needed (tunectl monitor set-reference ID ID ...)"
    by_third = "no window is large enough" if third is None else f"windows need {third:,} rows"
    enough = "enough" if rows >= ninth else "too few"
    return f"{message}: by the 3rd window {by_third}, by the 9th {ninth:,}; they have {rows:,}, {enough}"


def _format_interval(share: tuple[float, float, float]) -> str:
    return f"{share[0]:.1%} ({share[1]:.1%} to {share[2]:.1%})"


def backtest(args: argparse.Namespace, settings: MonitorSettings, layout: ProjectPaths) -> int:
    """Print the windows and verdicts that the traffic of a period would have given; nothing is stored. Return the exit code.

    Raises  UsageError without --from, or where it is not before --to.
    """
    from msgspec import to_builtins

    from tunectl.backends.system import terminal
    from tunectl.cli import monitor_windows
    from tunectl.core import progress
    from tunectl.monitoring import backtest as past
    from tunectl.monitoring import factory

    since, until = time_args.parse_time(args.since), time_args.parse_time(args.until) or datetime.now(UTC)
    if since is None:
        raise UsageError(
            "--from is missing: when does the period begin?", hint="tunectl monitor backtest --from 30d --to 2026-03-01"
        )
    if since >= until:
        raise UsageError(
            f"backtest from {args.since} to {args.until or 'now'}: the first time must be before the second",
            hint="tunectl monitor backtest --from 30d --to 2026-03-01",
        )
    with open_inference_log.open_existing(settings.inference_log, layout) as store:
        windows = past.backtest(factory.build_monitor(settings, layout, store), since, until)
        result = list(progress.track(windows, "looking at windows"))
    if args.json:
        terminal.print_json(to_builtins(result))
        return 0
    if result:
        terminal.table("", monitor_windows.COLUMNS, [monitor_windows.row(item) for item in result])
    counts = Counter(item.verdict for item in result)
    verdicts = ["", *(item.verdict for item in result)]
    alarms = sum(new == "drift" != old for old, new in pairwise(verdicts))
    days = (until - since).total_seconds() / 86400
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()) or "none"
    terminal.print_line(f"{len(result)} windows in {days:.1f} days: {summary}; it would have fired {alarms} times")
    return 0

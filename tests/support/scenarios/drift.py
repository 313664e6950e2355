"""Drift where there is none, where there is some, and in windows that no test was made for (faults 14, 15, 16)."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import replace as changed
from datetime import UTC, datetime

from msgspec.structs import replace
from scipy.stats import binomtest

from scenarios.fault_result import FaultResult
from tunectl.monitoring import power_study
from tunectl.monitoring.drift_detector import DriftDetector
from tunectl.monitoring.monitor_metrics import DriftMetrics
from tunectl.monitoring.power_study import Rate, Simulation
from tunectl.monitoring.signals import MonitoredInference, SignalColumns
from tunectl.monitoring.window import TimeSpan
from tunectl.monitoring.window_size import DetectionRule

SHARES = (0.10, 0.15, 0.30)
SPAN = TimeSpan(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC))
SCRIPTS = (
    "Пекарня на углу откроется в семь утра", "街角的面包店早上七点开门", "المخبز في الزاوية يفتح في السابعة", "कोने की बेकरी सुबह सात बजे खुलती है",
    "모퉁이 빵집은 아침 일곱 시에 엽니다", "🥐🥖☕🙂", "\u200b\u200d\ufeff", "\x00\x01",
)  # fmt: skip


def null(
    pool: SignalColumns,
    own: Sequence[int],
    rule: DetectionRule,
    *,
    reference: int,
    rows: int,
    repetitions: int,
    evaluations: int,
) -> FaultResult:
    """Windows in which nothing changed, each with a reference and eight earlier windows of its own.

    ``repetitions`` are for the signals alone, ``evaluations`` for the verdict: those that share a reference or windows err together,
    so only independent ones can be counted for a binomial test.
    """
    found = FaultResult(
        14,
        f"nothing changed, {rows} rows",
        "false alarms of a signal at most its level, false verdicts at most those declared",
    )
    bench = Simulation({"prompt": pool}, {"prompt": own}, rule, reference, rows)
    rates = bench.run(repetitions, 14, windows=1)
    for name, rate in rates.alone.items():
        bound = rule.level + 2 * math.sqrt(rule.level * (1 - rule.level) / rate.total)
        found.require(rate.share <= bound, f"{name}: {rate} of the windows flagged, at most {bound:.1%}")
    worst = max(rates.alone.items(), key=lambda one: one[1].share)
    false = bench.run(evaluations, 15, windows=1).by_window(1)
    found.figures |= {"windows": repetitions, "worst_signal": f"{worst[0]} {worst[1]}", "false_verdicts": str(false)}
    found.require(
        binomtest(false.count, evaluations, rule.false_alarms, alternative="greater").pvalue > 0.01,
        f"{false.count} of {evaluations} evaluations said drift, {rule.false_alarms:.1%} are declared",
    )
    return found


def power(
    pool: SignalColumns,
    own: Sequence[int],
    foreign: Sequence[int],
    rule: DetectionRule,
    *,
    reference: int,
    sizes: Sequence[int],
    repetitions: int,
) -> FaultResult:
    """How often so much of something else is noticed; more of it, and more rows, must never be noticed less."""
    found = FaultResult(15, "power", "numbers for 10, 15 and 30 % at 50, 100 and 300 rows, which rise with both")
    table: dict[tuple[float, int], Rate] = {}
    for rows in sizes:
        bench = Simulation(
            {"prompt": pool}, {"prompt": own}, changed(rule, minimum=min(rule.minimum, rows)), reference, rows
        )
        for share in SHARES:
            shift = power_study.inject_foreign("prompt", foreign, share)
            rates = bench.run(repetitions, 15, shift, windows=1)
            table[share, rows] = max(rates.alone.values(), key=lambda rate: rate.share)
            found.figures[f"{share:.0%}_at_{rows}"] = f"{table[share, rows].share:.0%}"
    slack = 2 * math.sqrt(0.25 / repetitions)
    for (share, rows), rate in table.items():
        for other, more in ((share, rows + 1), (share + 0.01, rows)):
            above = [one for (s, r), one in table.items() if s >= other and r >= more]
            found.require(
                all(one.share >= rate.share - slack for one in above),
                f"{share:.0%} at {rows} rows is noticed more often than a larger change",
            )
    least = table[max(SHARES), max(sizes)]
    found.require(least.share > 0.9, f"{max(SHARES):.0%} at {max(sizes)} rows is noticed in {least} only")
    return found


def degenerate(
    examiner: DriftDetector, usual: Sequence[MonitoredInference], *, many: int, seconds: float
) -> FaultResult:
    """Windows of nothing, of one row, of equal rows, without numbers, of other scripts, and very large ones."""
    found = FaultResult(
        16, "degenerate windows", "a verdict in time, insufficient where it is due, and never NaN in a metric"
    )
    baselines = {side: examiner.measure_reference("reference", usual, side) for side in ("prompt", "answer")}
    metrics = DriftMetrics(examiner.rule.evidence_required)
    for name, rows, verdicts in _windows(usual, examiner.rule.minimum, many):
        began = time.monotonic()
        window = examiner.examine_window(SPAN, rows, baselines, [], release="r", missing={})
        found.require_at_most(f"{name}_s", time.monotonic() - began, seconds)
        found.require(
            window.verdict in verdicts,
            f"{name}: {window.verdict} ({window.reason}), one of {', '.join(verdicts)} is due",
        )
        found.require(bool(window.reason), f"{name}: no reason")
        metrics.record_window(window)
        text = metrics.render().decode()
        found.require(not {"nan", "inf", "-inf", "+inf"} & _values(text), f"{name}: a metric is not a number")
    return found


def _values(text: str) -> set[str]:
    return {line.rsplit(" ", 1)[1].casefold() for line in text.splitlines() if line[0] != "#"}


def _windows(
    usual: Sequence[MonitoredInference], least: int, many: int
) -> Sequence[tuple[str, list[MonitoredInference], tuple[str, ...]]]:
    one, few, full = usual[0], list(usual[:10]), list(usual[: max(least, 60)])
    dice = random.Random(16)
    nothing = [MonitoredInference(id=str(place)) for place in range(len(full))]
    numbers = [replace(row, mean_logprob=dice.choice([math.nan, math.inf, -math.inf, None])) for row in full]
    texts = [replace(row, prompt=dice.choice(SCRIPTS), answer=dice.choice(SCRIPTS)) for row in full]
    large = [replace(usual[place % len(usual)], id=f"large-{place}") for place in range(many)]
    return (
        ("no rows", [], ("insufficient",)), ("one row", [one], ("insufficient",)), ("ten rows", few, ("insufficient",)),
        ("equal rows", [replace(one, id=str(place)) for place in range(len(full))], ("ok", "drift")),
        ("empty rows", nothing, ("insufficient", "ok", "drift")), ("numbers that are none", numbers, ("ok", "drift")),
        ("other scripts", texts, ("ok", "drift")), (f"{many} rows", large, ("ok", "drift")),
    )  # fmt: skip

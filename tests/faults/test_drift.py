"""Drift, a handful of each: no change, change, odd windows, a monitor that dies. ``make faults``: the full counts, on real text."""

from __future__ import annotations

from pathlib import Path

import prometheus_stack
import pytest
from drift_fixtures import RULE, examiner, rows, tools
from scenarios import drift, exporter
from scenarios.fault_report import assert_targets_met

from tunectl.monitoring import signals

pytestmark = pytest.mark.timeout(600)
FAST = RULE
OWN, FOREIGN = 900, 300


@pytest.fixture(scope="module")
def pool() -> signals.SignalColumns:
    mixed = [*rows(OWN, seed=1), *rows(FOREIGN, seed=2, topics=["bread"])]
    return signals.compute_signal_values(
        mixed, "prompt", tools(), without=["feedback", "prompt_tokens", "prompt_language"]
    )


def test_no_change_is_no_alarm(pool: signals.SignalColumns) -> None:
    assert_targets_met(drift.null(pool, range(OWN), FAST, reference=400, rows=100, repetitions=40, evaluations=200))


def test_more_of_a_change_is_noticed_more_often(pool: signals.SignalColumns) -> None:
    assert_targets_met(
        drift.power(pool, range(OWN), range(OWN, OWN + FOREIGN), FAST, reference=400, sizes=(50, 100), repetitions=20)
    )


def test_odd_windows_have_a_verdict() -> None:
    assert_targets_met(drift.degenerate(examiner(most=2000), rows(400, seed=3), many=5_000, seconds=60))


@pytest.mark.skipif(not prometheus_stack.INSTALLED, reason=prometheus_stack.NOT_INSTALLED)
def test_a_killed_monitor_and_a_failing_one_fire_alerts(tmp_path: Path) -> None:
    assert_targets_met(exporter.stale(tmp_path, promises={"TunectlDriftJobStale": 30, "TunectlDriftJobAbsent": 30}))

"""Webhooks in a storm, none at all, and weeks by a simulated clock. ``make faults``: the full counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenarios import simulated_week, webhooks
from scenarios.fault_report import assert_targets_met

pytestmark = pytest.mark.timeout(900)


def test_repeated_webhooks_start_one_run(tmp_path: Path) -> None:
    assert_targets_met(webhooks.send_repeatedly(tmp_path / "shop", deliveries=60, restarts=2))


def test_without_a_delivered_alert_the_controller_finds_the_drift(tmp_path: Path) -> None:
    assert_targets_met(webhooks.run_without_alertmanager(tmp_path / "shop"))


@pytest.mark.parametrize("ending", ["promoted", "rejected"])
def test_a_week_of_flapping(tmp_path: Path, ending: str) -> None:
    assert_targets_met(simulated_week.flapping(tmp_path, days=7, minutes=30, seed=21, ending=ending))


def test_everything_in_one_second(tmp_path: Path) -> None:
    assert_targets_met(simulated_week.same_second(tmp_path, times=6))

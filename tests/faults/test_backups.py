"""Backups in the middle of other things, and a key that is removed in mid-experiment. ``make faults``: the full counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenarios import backups, poisoned_canary
from scenarios.fault_report import assert_targets_met

pytestmark = pytest.mark.timeout(600)


def test_a_backup_while_another_process_promotes_and_is_killed(tmp_path: Path) -> None:
    assert_targets_met(backups.during_promotions(tmp_path, times=4))


def test_an_old_backup_beside_an_address_that_has_gone_on(tmp_path: Path) -> None:
    assert_targets_met(backups.beside_a_newer_address(tmp_path))


def test_a_backup_on_a_disk_that_gets_full(tmp_path: Path) -> None:
    assert_targets_met(backups.on_a_full_disk(tmp_path, times=5))


def test_a_key_with_poisoned_feedback_is_removed_during_a_canary(tmp_path: Path) -> None:
    assert_targets_met(poisoned_canary.removed_key(tmp_path, times=2))

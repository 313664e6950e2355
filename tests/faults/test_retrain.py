"""Retrains that are killed, starved, doubled, cut off, repeated and fed with rubbish, a handful of each. ``make faults``: the full counts."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
import retrain_project
from scenarios import gate_decisions, idempotence, offline, power_cuts, retrain_failures, retrain_kills, self_training
from scenarios.fault_report import assert_targets_met

pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("party", retrain_kills.PARTIES)
def test_kill_nine_at_a_random_moment(tmp_path: Path, party: str) -> None:
    found = retrain_kills.new_result()
    hit = retrain_kills.run_and_kill(found, tmp_path / "shop", party, random.Random(party).uniform(0, 0.7))
    assert_targets_met(found)
    assert hit, "the run had ended before it was hit"


@pytest.mark.parametrize("kind", retrain_failures.FAILURES)
def test_trouble_in_training(tmp_path: Path, kind: str) -> None:
    found = retrain_failures.new_result()
    retrain_failures.run_failure(found, tmp_path / "shop", kind)
    assert_targets_met(found)


def test_a_run_that_is_stopped_and_one_without_room(tmp_path: Path) -> None:
    found = retrain_failures.new_result()
    retrain_failures.run_stopped_retrain(found, tmp_path / "stopped")
    retrain_failures.run_on_full_disk(found, tmp_path / "full")
    assert_targets_met(found)


def test_two_loops(tmp_path: Path) -> None:
    assert_targets_met(retrain_kills.two_loops(tmp_path / "shop"))


def test_two_loops_in_containers(tmp_path: Path) -> None:
    if not retrain_kills.can_make_pid_namespaces():
        pytest.skip("this machine makes no PID namespaces")
    assert_targets_met(retrain_kills.two_loops(tmp_path / "shop", retrain_kills.CONTAINER))


def test_a_retrain_without_a_network(tmp_path: Path) -> None:
    if not offline.possible():
        pytest.skip("this machine makes no network namespaces")
    folder = tmp_path / "shop"
    retrain_project.drift(folder, retrain_project.make(folder).champion().release)
    words = [sys.executable, str(Path(retrain_project.__file__).with_name("killable_retrainer.py")), "once"]
    assert_targets_met(offline.offline(words, folder, retrain_project.ENVIRONMENT, "one retrain", seconds=300))
    assert retrain_project.states(folder)[-1][-1] == "promoted"


def test_the_power_fails_while_a_pointer_is_swapped(tmp_path: Path) -> None:
    found = power_cuts.new_result()
    power_cuts.pointer(found, tmp_path, every=3)
    assert_targets_met(found)


def test_a_power_cut_during_a_promotion(tmp_path: Path) -> None:
    found = power_cuts.new_result()
    power_cuts.promotion(found, tmp_path / "shop", every=7, most=5)
    assert_targets_met(found)


def test_the_same_work_twice_and_elsewhere(tmp_path: Path) -> None:
    assert_targets_met(idempotence.twice(tmp_path / "shop"))


def test_decisions_of_the_gate() -> None:
    assert_targets_met(gate_decisions.decisions(40))


def test_self_training_generations_and_poisoned_feedback() -> None:
    assert_targets_met(self_training.five())
    assert_targets_met(self_training.poison())

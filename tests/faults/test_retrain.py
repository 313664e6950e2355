"""Retrains that are killed, starved, doubled, cut off, repeated and fed with rubbish, a handful of each. ``make faults``: the full counts."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
import watch_project
from scenarios import cuts, gates, generations, kills, offline, repeats, troubles
from scenarios.report import kept

pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("party", kills.PARTIES)
def test_kill_nine_at_a_random_moment(tmp_path: Path, party: str) -> None:
    found = kills.kills_found()
    hit = kills.killed(found, tmp_path / "shop", party, random.Random(party).uniform(0, 0.7))
    kept(found)
    assert hit, "the run had ended before it was hit"


@pytest.mark.parametrize("kind", troubles.TROUBLES)
def test_trouble_in_training(tmp_path: Path, kind: str) -> None:
    found = troubles.troubles_found()
    troubles.trouble(found, tmp_path / "shop", kind)
    kept(found)


def test_a_run_that_is_stopped_and_one_without_room(tmp_path: Path) -> None:
    found = troubles.troubles_found()
    troubles.stopped(found, tmp_path / "stopped")
    troubles.full(found, tmp_path / "full")
    kept(found)


def test_two_loops(tmp_path: Path) -> None:
    kept(kills.two_loops(tmp_path / "shop"))


def test_two_loops_in_containers(tmp_path: Path) -> None:
    if not kills.containers():
        pytest.skip("this machine makes no PID namespaces")
    kept(kills.two_loops(tmp_path / "shop", kills.CONTAINER))


def test_a_retrain_without_a_network(tmp_path: Path) -> None:
    if not offline.possible():
        pytest.skip("this machine makes no network namespaces")
    folder = tmp_path / "shop"
    watch_project.drift(folder, watch_project.make(folder).champion().release)
    words = [sys.executable, str(Path(watch_project.__file__).with_name("watch_victim.py")), "once"]
    kept(offline.offline(words, folder, watch_project.ENVIRONMENT, "one retrain", seconds=300))
    assert watch_project.states(folder)[-1][-1] == "promoted"


def test_the_power_fails_while_a_pointer_is_swapped(tmp_path: Path) -> None:
    found = cuts.cuts_found()
    cuts.pointer(found, tmp_path, every=3)
    kept(found)


def test_the_power_fails_while_a_retrain_is_promoted(tmp_path: Path) -> None:
    found = cuts.cuts_found()
    cuts.promotion(found, tmp_path / "shop", every=7, most=5)
    kept(found)


def test_the_same_work_twice_and_elsewhere(tmp_path: Path) -> None:
    kept(repeats.twice(tmp_path / "shop"))


def test_decisions_of_the_gate() -> None:
    kept(gates.decisions(40))


def test_generations_and_poison() -> None:
    kept(generations.five())
    kept(generations.poison())

"""What the watcher tells Prometheus of itself: a scrape is no sign of life of its driver."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from tunectl.core.errors import InfrastructureError
from tunectl.retraining import controller_process, state_machine
from tunectl.retraining.retrain_metrics import RetrainMetrics
from tunectl.retraining.state_machine import RetrainRun, State, Transition, Trigger

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def samples(metrics: RetrainMetrics, *runs: RetrainRun) -> dict[str, float]:
    lines = metrics.text(runs, [], None, None).decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def run(*states: State) -> RetrainRun:
    found = state_machine.new_run("a" * 64, 1, Trigger("alert", "alert-1", NOW, "drift"), NOW, {})
    for state in states:
        found = state_machine.apply_transition(found, Transition(state, NOW))
    return found


def test_a_scrape_is_no_look() -> None:
    metrics = RetrainMetrics(1000.0)
    assert samples(metrics)["tunectl_retrain_last_reconcile_timestamp_seconds"] == 1000.0
    assert samples(metrics)["tunectl_retrain_last_reconcile_timestamp_seconds"] == 1000.0
    metrics.last_reconcile = 1060.0
    assert samples(metrics)["tunectl_retrain_last_reconcile_timestamp_seconds"] == 1060.0


@pytest.mark.parametrize(
    ("states", "building"),
    [
        ((), 0.0),
        (("data_gate",), 0.0),
        (("data_gate", "training"), 1.0),
        (("data_gate", "training", "evaluating"), 1.0),
        (("data_gate", "training", "evaluating", "staged", "canary"), 0.0),
        (("data_gate", "training", "failed"), 0.0),
    ],
)
def test_build_in_progress_is_set_for_long_states_but_not_for_a_canary(
    states: tuple[State, ...], building: float
) -> None:
    assert samples(RetrainMetrics(0.0), run(*states))["tunectl_retrain_build_in_progress"] == building


@pytest.mark.parametrize("trouble", [None, InfrastructureError("no server"), OSError("no disk"), KeyError("our bug")])
def test_every_look_that_ends_is_noted_and_one_that_hangs_is_not(trouble: Exception | None) -> None:
    seen: list[float] = []

    def look(_now: datetime) -> bool:
        seen.append(watcher._metrics.last_reconcile)
        if trouble:
            raise trouble
        return True

    watcher = controller_process.RetrainerProcess.__new__(controller_process.RetrainerProcess)
    watcher._metrics = RetrainMetrics(5.0)
    watcher._driver = SimpleNamespace(reconcile=look)
    watcher._root = SimpleNamespace(retrain=SimpleNamespace(poll_seconds=1.0))
    watcher._publisher, watcher._publishing = SimpleNamespace(sync_if_changed=lambda: False), threading.Lock()
    watcher._mirror = SimpleNamespace(sync_if_changed=lambda: None)
    before = time.time()
    watcher._check_for_work(once=False)
    assert seen == [5.0], "while it looks, the time is that of the look before"
    assert watcher._metrics.last_reconcile >= before
    assert watcher._metrics.errors == (trouble is not None)
    if trouble:
        with pytest.raises(type(trouble)):  # nobody looks again
            watcher._check_for_work(once=True)

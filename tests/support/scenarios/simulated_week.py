"""A week by a simulated clock: a score that flaps, and triggers that come at the same second (faults 21, 22)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

from fake_retrain_world import NOW, FakeActivities, driver, window

from scenarios.fault_result import FaultResult
from tunectl.retraining.state_machine import RetrainRun, Trigger

COOLDOWN = 24.0
FIRST = 10_000
"""Number of the first window: all have five digits."""
SCHEDULES = {"nightly": {"cron": "0 12 * * *", "zone": "UTC"}}


def flapping(folder: Path, *, days: int, minutes: int, seed: int, ending: str) -> FaultResult:
    """A score goes over and under its threshold at random; each time it goes over, a new alert comes, and the window is another one."""
    found = FaultResult(
        21,
        f"flapping score, retrains end {ending}",
        "at most one retrain a cooldown, which doubles after fruitless ones",
    )
    dice, activities = random.Random(seed), FakeActivities()
    activities.verdict = {"promoted": "promote", "rejected": "reject"}[ending]
    one = driver(folder, activities, limits__cooldown_hours=COOLDOWN, limits__max_per_week=1000, canary=None)
    over, alerts = False, 0
    for step in range(days * 24 * 60 // minutes):
        now = NOW + timedelta(minutes=step * minutes)
        before, over = over, dice.random() < 0.5
        activities.window, activities.examined = (window(FIRST + step) if over else None), now
        if over and not before:
            alerts += 1
            one.store.enqueue_trigger(Trigger("alert", f"alert-{step}", now, "the score is over its threshold"))
        while one.reconcile(now):
            pass
    runs = one.store.runs()
    found.require(len(runs) >= 1, "nothing was started at all")
    found.require(all(run.ended for run in runs), "a run has not ended")
    for gap, wanted in zip(_gaps(runs), _cooldowns(ending), strict=False):
        found.require(gap >= wanted, f"{gap:.1f} h between two retrains, at least {wanted:.1f} h")
    found.require(
        one.store.list_pending_triggers() == [], f"{len(one.store.list_pending_triggers())} alerts are still waiting"
    )
    reasons = {seen.reason for seen in one.store.list_outcomes() if seen.run is None}
    found.require(reasons <= {"cooldown", "no_drift", "duplicate"}, f"suppressed for {sorted(map(str, reasons))}")
    found.figures |= {"alerts": alerts, "retrains": len(runs), "days": days}
    return found


def _gaps(runs: list[RetrainRun]) -> Iterator[float]:
    """Hours from the end of a run to the beginning of the next."""
    for first, second in pairwise(runs):
        yield (second.steps[0].at - first.steps[-1].at).total_seconds() / 3600


def _cooldowns(ending: str) -> Iterator[float]:
    hours = COOLDOWN
    while True:
        hours = min(hours * (2 if ending == "rejected" else 1), 672)
        yield hours


def same_second(folder: Path, *, times: int) -> FaultResult:
    """A schedule is due, an alert comes, a poll finds the same drift, and a person asks, all in one second."""
    found = FaultResult(
        22, "schedule, drift, poll and person at the same second", "one run, and every trigger is answered"
    )
    for turn in range(times):
        activities = FakeActivities()
        one = driver(
            folder / str(turn),
            activities,
            schedules=SCHEDULES,
            limits__cooldown_hours=COOLDOWN,
            canary=None,
            reconcile_minutes=0,
        )
        while one.reconcile(
            NOW - timedelta(minutes=1)
        ):  # marks the calendar; the drift is there already and is taken up
            activities.window = None
        before = len(one.store.runs())
        activities.window, activities.examined = window(FIRST + turn), NOW - timedelta(hours=1)
        later = NOW + timedelta(days=3 * (turn + 1))
        triggers = [Trigger(kind, f"{kind}-{turn}", later, "now") for kind in ("alert", "person")]
        random.Random(turn).shuffle(triggers)
        for trigger in triggers:
            one.store.enqueue_trigger(trigger)
        while one.reconcile(later):
            pass
        runs = one.store.runs()[before:]
        found.require(len(runs) == 1, f"{len(runs)} runs: {[run.trigger.kind for run in runs]}")
        found.require(one.store.list_pending_triggers() == [], "a trigger waits on")
        found.require(
            {seen.trigger.kind for seen in one.store.list_outcomes()} >= {"alert", "person", "schedule"},
            "a trigger was lost",
        )
    found.figures["times"] = times
    return found

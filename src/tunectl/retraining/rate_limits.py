"""Limits on when a retrain may start: one at a time, no duplicates, with cooldowns between them and a budget. Pure; times are in UTC."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Final

from msgspec import Struct

from tunectl.config.schema.retrain import RateLimitConfig
from tunectl.retraining.state_machine import CONCLUDED, RetrainRun, State, Suppressed, Trigger, TriggerKind

RECURRING_TRIGGERS: Final[frozenset[TriggerKind]] = frozenset(("alert", "poll"))
"""Triggers that are repeated for as long as the drift lasts."""
UNSUCCESSFUL: Final[frozenset[State]] = frozenset(("rejected", "withdrawn"))
"""Ends after which the next cooldown is twice as long."""
WEEK: Final = timedelta(days=7)


class RateLimits(Struct, frozen=True):
    """Shortest and longest cooldown after a retrain, and the most retrains in seven days."""

    cooldown: timedelta
    """Cooldown after a run has ended; twice as long for each unsuccessful run in a row."""
    longest: timedelta
    """Longest cooldown, after doubling."""
    week: int
    """Runs that may begin training in seven days."""


def policy_of(limits: RateLimitConfig) -> RateLimits:
    """Return the limits that the section ``retrain.limits`` declares."""
    return RateLimits(
        timedelta(hours=limits.cooldown_hours), timedelta(hours=limits.max_cooldown_hours), limits.max_per_week
    )


class AdmissionDecision(Struct, frozen=True):
    """Whether a trigger starts a run (``attempt``), and if not, why (``reason``, ``detail``)."""

    attempt: int | None
    """Number of the attempt; None: no run is started."""
    reason: Suppressed | None = None
    detail: str = ""


def admit_trigger(
    key: str, trigger: Trigger, runs: Sequence[RetrainRun], now: datetime, policy: RateLimits
) -> AdmissionDecision:
    """Return whether ``trigger`` may start a run of ``key``, given all ``runs`` so far, the oldest first."""
    same = [run for run in runs if run.key == key]
    concluded = next((run for run in same if run.state in CONCLUDED), None)
    if concluded is not None:
        return AdmissionDecision(
            None, "duplicate", f"retrain {concluded.id} with the same data, settings and code: {concluded.state}"
        )
    active = next((run for run in runs if not run.ended), None)
    if active is not None:
        reason: Suppressed = "duplicate" if active.key == key else "busy"
        return AdmissionDecision(None, reason, f"retrain {active.id} is {active.state}")
    return rate_limited(trigger, runs, now, policy) or AdmissionDecision(len(same) + 1)


def rate_limited(
    trigger: Trigger, runs: Sequence[RetrainRun], now: datetime, policy: RateLimits
) -> AdmissionDecision | None:
    """Return the refusal where cooldown or budget prevent ``trigger``, whatever its key is; None where they do not."""
    if trigger.ignore_limits:
        return None
    until = cooldown_until(runs, now, policy, recurring=trigger.kind in RECURRING_TRIGGERS)
    if until is not None:
        detail = f"the last retrain was {runs[-1].state}; the next one may start {_format_time(until)}"
        return AdmissionDecision(None, "cooldown", detail)
    spent = runs_within(runs, now)
    if spent >= policy.week:
        return AdmissionDecision(None, "budget", f"{spent} retrains in seven days; {policy.week} are allowed")
    return None


def cooldown_until(
    runs: Sequence[RetrainRun], now: datetime, policy: RateLimits, *, recurring: bool = False
) -> datetime | None:
    """Return when the cooldown ends; None where it has ended, or nothing has run yet.

    A dismissed run trained nothing, so it starts no cooldown, except for a ``recurring`` trigger (an alert or poll), which would ask
    people again at once. Ends of runs further in the future than the cooldown come from a wrong clock and are ignored.
    """
    ended = [run for run in runs if run.ended]
    real = [run for run in ended if run.state != "dismissed"]
    rests = [(real[-1], _rest(real, policy))] if real else []
    if recurring and ended and ended[-1].state == "dismissed":
        rests.append((ended[-1], policy.cooldown))
    moments = [(run.steps[-1].at, rest) for run, rest in rests]
    return max(
        (moment + rest for moment, rest in moments if moment <= now + rest and now < moment + rest), default=None
    )


def _rest(runs: Sequence[RetrainRun], policy: RateLimits) -> timedelta:
    """Return the cooldown after the last of these runs; in seconds, because a year of rejections doubles beyond what a timedelta holds."""
    fruitless = sum(1 for _ in takewhile(lambda run: run.state in UNSUCCESSFUL, reversed(runs)))
    seconds = policy.cooldown.total_seconds() * 2.0 ** min(fruitless, 64)
    return timedelta(seconds=min(seconds, policy.longest.total_seconds()))


def runs_within(runs: Sequence[RetrainRun], now: datetime, span: timedelta = WEEK) -> int:
    """Return the number of runs that began training in the ``span`` before ``now``; times further ahead come from a wrong clock and do not count."""
    return sum(any(step.state == "training" and abs(now - step.at) < span for step in run.steps) for run in runs)


def _format_time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"

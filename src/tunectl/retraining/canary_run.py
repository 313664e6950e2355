"""Build the canary of a retrain run from the configuration, and evaluate it on live traffic."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import replace

from tunectl.canary import canary_metrics, canary_store
from tunectl.canary import sequential_test as tests
from tunectl.canary.canary_metrics import CanaryData
from tunectl.canary.canary_store import CanaryRecord, CanaryStore
from tunectl.canary.sequential_test import CanaryResult, SequentialTestRules
from tunectl.config.schema.retrain import CanaryConfig
from tunectl.inference_log.log_store import InferenceLog
from tunectl.registry.release_state import ChampionPointer
from tunectl.retraining import schedules

LOADING: Final = timedelta(minutes=30)
"""How long servers may take to load a challenger; one without any answer by then is not served."""


def build_canary_record(
    settings: CanaryConfig, challenger: str, *, name: str, now: datetime, author: str, message: str
) -> CanaryRecord:
    """Return a canary as ``retrain.canary`` declares it; ``name`` becomes its id: that of its retrain, if it has one."""
    return CanaryRecord(
        id=name,
        challenger=challenger,
        champion="",
        metric=settings.metric,
        rules=SequentialTestRules(
            settings.share,
            settings.margin,
            settings.alpha,
            settings.harm_alpha,
            settings.guardrail_tolerance,
            settings.min_units_per_variant,
            settings.max_total_units,
        ),
        attribution_hours=settings.attribution_hours,
        slow_seconds=settings.slow_threshold_seconds,
        started_at=now,
        until=now + timedelta(days=settings.max_days),
        salt=canary_store.draw_salt(),
        author=author,
        message=message,
        run=name,
    )


def collect_observations(canary: CanaryRecord, log: InferenceLog, now: datetime) -> CanaryData:
    """Return the outcomes per identity of a canary so far, from the challenger's first answer on.

    Earlier requests are left out: while servers loaded the challenger, the champion answered its identities, too.
    """
    inferences = log.inferences(canary.started_at, now, release=canary.challenger, variant="challenger")
    first = next((item.accepted_at for item in inferences), None)
    loading = now if now < canary.started_at + LOADING else canary.started_at
    return canary_metrics.collect_observations(
        log.inferences(first or loading, now),
        log.feedback_of,
        metric=canary.metric,
        challenger=canary.challenger,
        attribution=timedelta(hours=canary.attribution_hours),
        slow=canary.slow_seconds,
        now=now,
    )


def evaluate_canary(
    canary: CanaryRecord, log: InferenceLog, canaries: CanaryStore, now: datetime
) -> CanaryResult | None:
    """Return the result of a canary as of ``now``, and store it; None where somebody has ended it meanwhile."""
    units = collect_observations(canary, log, now).units
    reading = _check_variants(
        canary,
        tests.evaluate(units, canary.rules, over=now >= canary.until),
        canaries.store.champion(),
        now,
    )
    return reading if canaries.record_result(canary, reading).ended_at is None else None


def _check_variants(
    canary: CanaryRecord, reading: CanaryResult, pointer: ChampionPointer | None, now: datetime
) -> CanaryResult:
    """Return the result, unless its variants are no longer the declared ones."""
    if pointer is not None and pointer.release == canary.challenger:
        if canary.reading is not None and canary.reading.decision == "promote":
            return canary.reading  # it won, and a kill came between its promotion and its end
        reason = f"{pointer.author or 'somebody'} has made it the champion: {pointer.message}".rstrip(": ")
        return replace(reading, decision="promote", reason=reason)
    if pointer is None or pointer.release != canary.champion:
        champion = pointer.release if pointer else "nobody"
        reason = f"the champion is {champion} now; {canary.champion} was when it began"
    elif canary.started_at > now + schedules.AHEAD:
        reason = f"it began at {canary.started_at:%Y-%m-%d %H:%M} UTC by a clock that was wrong"
    else:
        return reading
    return reading if reading.decision == "harm" else replace(reading, decision="unfair", reason=reason)

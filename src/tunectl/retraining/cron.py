"""Cron expressions in a time zone, with clock changes handled as in Debian's cron: the wrapper of cronsim."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tunectl.core.errors import UsageError
from tunectl.core.optional import import_optional
from tunectl.retraining.schedules import NAMED_SCHEDULES, CronSchedule


def next_slot(schedule: CronSchedule, after: datetime) -> datetime:
    """Return the first time of ``schedule`` after ``after``, in UTC.

    Raises  UsageError for an invalid expression or zone.
    """
    cronsim = import_optional("cronsim", extra="retrain")
    try:
        zone = ZoneInfo(schedule.zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(
            f"retrain.schedules: {schedule.name}: zone = {schedule.zone!r} is not a time zone",
            hint="write one of the IANA database, for example Europe/Berlin, America/New_York or UTC",
        ) from error
    try:
        slot: datetime = next(
            cronsim.CronSim(NAMED_SCHEDULES.get(schedule.cron, schedule.cron), after.astimezone(zone))
        )
    except (cronsim.CronSimError, StopIteration) as error:
        raise UsageError(
            f"retrain.schedules: {schedule.name}: cron = {schedule.cron!r} is not a schedule: {error or 'no time matches it'}",
            hint="write minute hour day month weekday, or monthly, or quarterly",
        ) from error
    return slot.astimezone(UTC)

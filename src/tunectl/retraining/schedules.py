"""Schedules: which time of a schedule (slot) is due. Pure; the rule for the next slot is a parameter (``retraining/cron.py``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from tunectl.retraining.state_machine import Trigger

NAMED_SCHEDULES: Final[Mapping[str, str]] = {"monthly": "0 3 1 * *", "quarterly": "0 3 1 1,4,7,10 *"}
"""Names for cron expressions: at 3:00 on the first day."""
AHEAD: Final = timedelta(days=1)
"""A mark further ahead was written by a wrong clock."""


BACK: Final = (timedelta(days=32), timedelta(days=367))
"""How far back the newest slot is searched after a long pause, the nearest first, instead of going through years of
minutes. Not nearer: in the hour that a clock change repeats, the rule needs the slots before it."""


class CronSchedule(Struct, frozen=True):
    """A schedule of retrains, as ``retrain.schedules`` declares it."""

    name: str
    cron: str
    """A cron expression, or a name of ``NAMED_SCHEDULES``."""
    zone: str
    """Time zone of the IANA database, for example ``Europe/Berlin``."""


Next = Callable[[CronSchedule, datetime], datetime]
"""Returns the first slot of a schedule after a moment, in UTC."""


def due_slot(
    schedule: CronSchedule, last: datetime | None, now: datetime, following: Next
) -> tuple[datetime | None, datetime]:
    """Return the newest slot after ``last`` that is due (None: none), and the time to store as handled.

    ``following`` returns the first slot of a schedule after a time. Of several missed slots only the newest counts. A new schedule begins now, and
    so does one whose stored time is in the far future.
    """
    if last is None or last > now + AHEAD:
        return None, now
    starts = (now - back for back in BACK if last < now - back)
    result, mark = None, next((start for start in starts if following(schedule, start) <= now), last)
    while (slot := following(schedule, mark)) <= now:
        result = mark = slot
    return result, mark


def trigger(schedule: CronSchedule, slot: datetime, now: datetime) -> Trigger:
    """Return the trigger for a due time ``slot`` of a schedule; its id contains the time, so that it starts only one run."""
    local = f"{slot:%Y-%m-%dT%H:%MZ}"
    reason = f"schedule {schedule.name} ({schedule.cron}, {schedule.zone}), due {slot:%Y-%m-%d %H:%M} UTC"
    return Trigger("schedule", f"schedule-{schedule.name}-{local}", now, reason, schedule.name)

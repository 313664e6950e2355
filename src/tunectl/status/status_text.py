"""A glance at the loop as rows of words, for one screen: what it is, and how it stands. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from tunectl.artifacts.records import truncate
from tunectl.status.status_report import Drift, Program, Retrain, StatusReport, Traffic

Row = tuple[str, str]
IDLE: Final[dict[Program, str]] = {"runs": "", "stopped": "no {} runs here", "never": "no {} has run here: tunectl {}"}
"""What is said of a program that does not run; its name for people, and its verb."""
LONGEST: Final = 160
"""Letters of a reason: the whole of it stands in the record."""


def format_rows(glance: StatusReport, now: datetime) -> Iterator[Row]:
    """Yield one row a part, in the order in which people ask."""
    yield "champion", _part(glance, "champion", _champion(glance))
    if glance.challenger is not None:
        yield "challenger", f"{glance.challenger.release}, {glance.challenger.share:.0%} of the people"
    yield "traffic", _part(glance, "live", _traffic(glance.traffic, now))
    yield "drift", _part(glance, "live", _drift(glance))
    yield "last retrain", _part(glance, "retrains", _retrain(glance.last) if glance.last else "none yet")
    if glance.now is not None:
        yield "retrain now", _retrain(glance.now)
    yield "next retrain", _part(glance, "schedules", _next(glance, now))
    if not glance.waits:
        yield "waits for you", _part(glance, "waits", "nothing")
    for wait in glance.waits:
        until = f"; until {_at(wait.until)}" if wait.until else ""
        yield "waits for you", f"{_short(wait.what)}{until}{f': {wait.link}' if wait.link else ''}"


def _part(glance: StatusReport, part: str, words: str) -> str:
    trouble = glance.troubles.get(part)
    return words if trouble is None else f"cannot be told: {_short(trouble)}"


def _champion(glance: StatusReport) -> str:
    found = glance.champion
    if found is None:
        return f"none of {glance.releases} releases" if glance.releases else "none, there is no release yet"
    return f"{found.release}, since {found.promoted_at[:16]}{f' ({_short(found.message)})' if found.message else ''}"


def _traffic(found: Traffic | None, now: datetime) -> str:
    if found is None or found.newest is None:
        return "nobody has asked anything here yet: tunectl serve"
    newest = f"the newest {humanize_age(found.newest, now)} ago"
    if not found.requests:
        return f"none in {found.hours:g} h; {newest}"
    people = f" of {found.people:,} {'person' if found.people == 1 else 'people'}" if found.people else ""
    left = found.requests - found.answered
    open_ = f", {left:,} of them without an answer" if left else ""
    said = ", ".join(f"{count:,} {kind}" for kind, count in found.feedback.items()) or "none"
    return f"{found.requests:,} requests{people} in {found.hours:g} h{open_}, {newest}; feedback: {said}"


def _drift(glance: StatusReport) -> str:
    found, idle = glance.drift, _idle(glance.monitor, "monitor")
    if found is None:
        return idle if glance.monitor == "never" else _join_parts("no window of traffic is closed yet", idle)
    other = glance.champion is not None and found.release != glance.champion.release
    whose = f" of {found.release}, before this champion" if other else ""
    return _join_parts(f"{_window(found)}{whose}: {_short(found.reason) or 'no reason given'}", idle)


def _window(found: Drift) -> str:
    count = f"evidence {found.evidence:.1f} of {found.evidence_required:.1f}"
    small = ""
    if found.too_small_for is not None:
        small = f" (too small for a change of {found.too_small_for}: tunectl monitor calibrate)"
    return f"{found.verdict}, {count}, in {found.rows:,} rows until {_at(found.until)}{small}"


def _retrain(found: Retrain) -> str:
    reason = f"; {_short(found.reason)}" if found.reason and found.reason != found.why else ""
    return f"{found.id} {found.state}, {_at(found.at)} ({found.trigger}: {_short(found.why)}){reason}"


def _next(glance: StatusReport, now: datetime) -> str:
    """Return the calendar first, then what may start one besides, then what holds it up."""
    slots = [
        f"{'was due' if slot.at <= now else 'due'} {_at(slot.at)} ({slot.schedule}: {slot.cron})"
        for slot in glance.next
    ]
    drift = "on drift" if glance.approval == "none" else "on drift, once a person says yes"
    began, most = glance.budget
    held = [
        f"not before {_at(glance.rests_until)}" if glance.rests_until else "",
        f"{began} of {most} that a week allows have run" if began >= most else "",
    ]
    return _join_parts(
        *slots,
        drift if slots else f"nothing is scheduled; {drift}",
        *held,
        _idle(glance.controller, "retrain controller"),
    )


def _idle(program: Program, verb: str) -> str:
    return IDLE[program].format(verb, verb)


def _join_parts(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _at(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _short(text: str) -> str:
    return truncate(text, LONGEST)


def humanize_age(at: datetime, now: datetime) -> str:
    """Return how long ago, in its largest unit; a clock that was set back makes it 0 s."""
    seconds = max(0.0, (now - at).total_seconds())
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"

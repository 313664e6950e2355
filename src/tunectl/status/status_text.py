"""Format a status report as rows for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from tunectl.artifacts.records import truncate
from tunectl.status.status_report import Drift, Program, Retrain, StatusReport, Traffic

Row = tuple[str, str]
IDLE: Final[dict[Program, str]] = {"runs": "", "stopped": "no {} runs here", "never": "no {} has run here: tunectl {}"}
"""Texts about a program that does not run; {} is its name, then its command."""
LONGEST: Final = 160
"""Most letters of a reason: the record has the whole text."""


def format_rows(glance: StatusReport, now: datetime) -> Iterator[Row]:
    """Yield (component, state) rows for the table of ``tunectl status``."""
    yield "champion", _part(glance, "champion", _champion(glance))
    if glance.challenger is not None:
        yield "challenger", f"{glance.challenger.release}, {glance.challenger.share:.0%} of the identities"
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


def _part(glance: StatusReport, part: str, text: str) -> str:
    trouble = glance.troubles.get(part)
    return text if trouble is None else f"cannot be told: {_short(trouble)}"


def _champion(glance: StatusReport) -> str:
    champion = glance.champion
    if champion is None:
        return f"none of {glance.releases} releases" if glance.releases else "none, there is no release yet"
    return f"{champion.release}, since {champion.promoted_at[:16]}{f' ({_short(champion.message)})' if champion.message else ''}"


def _traffic(traffic: Traffic | None, now: datetime) -> str:
    if traffic is None or traffic.newest is None:
        return "nobody has asked anything here yet: tunectl serve"
    newest = f"the newest {humanize_age(traffic.newest, now)} ago"
    if not traffic.requests:
        return f"none in {traffic.hours:g} h; {newest}"
    people = f" of {traffic.people:,} {'person' if traffic.people == 1 else 'people'}" if traffic.people else ""
    unanswered = traffic.requests - traffic.answered
    open_ = f", {unanswered:,} of them without an answer" if unanswered else ""
    feedback_text = ", ".join(f"{count:,} {kind}" for kind, count in traffic.feedback.items()) or "none"
    return f"{traffic.requests:,} requests{people} in {traffic.hours:g} h{open_}, {newest}; feedback: {feedback_text}"


def _drift(glance: StatusReport) -> str:
    result, idle = glance.drift, _idle(glance.monitor, "monitor")
    if result is None:
        return idle if glance.monitor == "never" else _join_parts("no window of traffic is closed yet", idle)
    other = glance.champion is not None and result.release != glance.champion.release
    suffix = f" of {result.release}, before this champion" if other else ""
    return _join_parts(f"{_window(result)}{suffix}: {_short(result.reason) or 'no reason given'}", idle)


def _window(drift: Drift) -> str:
    count = f"evidence {drift.evidence:.1f} of {drift.evidence_required:.1f}"
    small = ""
    if drift.too_small_for is not None:
        small = f" (too small for a change of {drift.too_small_for}: tunectl monitor calibrate)"
    return f"{drift.verdict}, {count}, in {drift.rows:,} rows until {_at(drift.until)}{small}"


def _retrain(retrain: Retrain) -> str:
    reason = f"; {_short(retrain.reason)}" if retrain.reason and retrain.reason != retrain.why else ""
    return f"{retrain.id} {retrain.state.replace('_', ' ')}, {_at(retrain.at)} ({retrain.trigger}: {_short(retrain.why)}){reason}"


def _next(glance: StatusReport, now: datetime) -> str:
    """Return the next schedules, then other possible causes of a retrain, then what prevents one."""
    slots = [
        f"{'was due' if slot.at <= now else 'due'} {_at(slot.at)} ({slot.schedule}: {slot.cron})"
        for slot in glance.next
    ]
    drift = "on drift" if glance.approval == "none" else "on drift, once a person says yes"
    began, most = glance.budget
    waiting = [
        f"not before {_at(glance.rests_until)}" if glance.rests_until else "",
        f"{began} of {most} that a week allows have run" if began >= most else "",
    ]
    return _join_parts(
        *slots,
        drift if slots else f"nothing is scheduled; {drift}",
        *waiting,
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
    """Return the time since ``at`` in its largest unit, such as ``3 h``; ``0 s`` if ``at`` is after ``now``."""
    seconds = max(0.0, (now - at).total_seconds())
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"

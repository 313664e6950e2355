"""The timeline of the demo, in seconds since its start: built from the records of the programs and from the phases of the traffic. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct, field

from tunectl.artifacts.records import DriftWindow
from tunectl.canary.canary_store import CanaryRecord
from tunectl.registry.release_state import ReleaseEvent, swap_entries
from tunectl.retraining.state_machine import ENDS, RetrainRun

Category = Literal["normal", "changed", "active", "good", "bad"]
"""The color of an entry. normal: no change. changed: changed traffic or an alert. active: a retrain or a canary in progress. good, bad: a result."""
SENT_BY_DEMO = "This webhook was sent by the demo script, not by Alertmanager."
LANES = ("users", "monitor", "alert", "retrain", "build", "canary", "champion")
CATEGORIES: dict[str, Category] = {"promoted": "good", "rejected": "bad", "withdrawn": "bad", "failed": "bad"}


class Span(Struct, frozen=True):
    """An entry with a start and an end."""

    lane: str
    label: str
    since: float
    until: float
    category: Category
    note: str = ""


class Mark(Struct, frozen=True):
    """An entry at one moment."""

    lane: str
    label: str
    at: float
    category: Category
    note: str = ""


class DemoCheck(Struct, frozen=True):
    """A statement about the loop, and whether the demo confirmed it."""

    statement: str
    passed: bool
    evidence: str


class Timeline(Struct, frozen=True):
    """Everything that is drawn: spans, marks, checks and headline numbers."""

    title: str
    began: datetime
    seconds: float
    spans: list[Span] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    checks: list[DemoCheck] = field(default_factory=list)
    figures: list[tuple[str, str]] = field(default_factory=list)
    """A number and what it measures."""

    @property
    def lanes(self) -> list[str]:
        """Lanes with entries, from top to bottom."""
        used = {span.lane for span in self.spans} | {mark.lane for mark in self.marks}
        return [lane for lane in LANES if lane in used]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def score(self) -> str:
        """How many checks passed."""
        return f"{sum(check.passed for check in self.checks)} of {len(self.checks)} checks passed"


class Clock:
    """Converts a time to seconds since the start of the demo."""

    def __init__(self, began: datetime) -> None:
        self.began = began

    def __call__(self, at: datetime) -> float:
        return round((at - self.began).total_seconds(), 2)


def build_window_marks(closed: Iterable[tuple[DriftWindow, datetime]], clock: Clock) -> list[Mark]:
    """Build a mark for each window, at the time of its verdict."""
    result = []
    for item, made_at in closed:
        category: Category = "bad" if item.verdict == "drift" else "normal"
        result.append(
            Mark(
                "monitor", item.verdict, clock(made_at), category, f"window {item.id}, {item.rows} rows: {item.reason}"
            )
        )
    return result


def build_retrain_entries(runs: Iterable[RetrainRun], clock: Clock, now: float) -> list[Span | Mark]:
    """Build a span for each state of a retrain and a mark for its end."""
    result: list[Span | Mark] = []
    for run in runs:
        ends = [clock(step.at) for step in run.steps[1:]] + [now]
        for step, end in zip(run.steps, ends, strict=True):
            if step.state in ENDS:
                category = CATEGORIES.get(step.state, "changed")
                result.append(
                    Mark("retrain", step.state.replace("_", " "), clock(step.at), category, f"{run.id}: {step.message}")
                )
            elif end > clock(step.at):
                label = step.state.replace("_", " ")
                result.append(Span("retrain", label, clock(step.at), end, "active", f"{run.id}: {step.message}"))
    return result


def build_alert_marks(runs: Iterable[RetrainRun], clock: Clock) -> list[Mark]:
    """Build marks for when an alert started to fire and when its webhook was received."""
    result = []
    for run in runs:
        if run.trigger.kind != "alert":
            continue
        fired = datetime.fromisoformat(str(run.trigger.facts["startsAt"])).astimezone(UTC)
        result.append(Mark("alert", "fires", clock(fired), "changed", run.trigger.message))
        result.append(Mark("alert", "webhook", clock(run.trigger.at), "active", f"from {name_alert_sender(run)}"))
    return result


def name_alert_sender(run: RetrainRun) -> str:
    """Name the sender of the webhook: Alertmanager, or the demo script."""
    return "the demo script" if run.trigger.facts.get("description") == SENT_BY_DEMO else run.trigger.author


def build_canary_spans(result: Iterable[CanaryRecord], clock: Clock, now: float) -> list[Span]:
    """Build a span for each canary test."""
    categories: dict[str, Category] = {"promote": "good", "harm": "bad"}
    spans = []
    for item in result:
        ended = clock(item.ended_at) if item.ended_at is not None else now
        category = categories.get(item.decision or "", "active")
        reading = item.reading
        units = (
            f"{reading.champion_units + reading.challenger_units} users; {reading.reason}"
            if reading
            else "no users yet"
        )
        spans.append(
            Span(
                "canary",
                item.decision or "runs",
                clock(item.started_at),
                ended,
                category,
                f"{item.challenger}: {units}",
            )
        )
    return spans


def build_champion_spans(log: Sequence[ReleaseEvent], clock: Clock, now: float) -> list[Span]:
    """Build a span for each champion."""
    swaps = swap_entries(log)
    spans = []
    for index, swap in enumerate(swaps):
        since = max(clock(datetime.fromisoformat(swap.created_at)), 0.0)
        until = clock(datetime.fromisoformat(swaps[index + 1].created_at)) if index + 1 < len(swaps) else now
        if until > 0:
            spans.append(
                Span("champion", swap.release[:6], since, until, "normal" if index == 0 else "good", swap.message)
            )
    return spans


def format_duration(seconds: float) -> str:
    """Format a duration: 0:07, 12:34, or 1:02:03."""
    total = max(0, round(seconds))
    hours, rest = divmod(total, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"

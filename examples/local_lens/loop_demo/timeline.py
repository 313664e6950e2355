"""What happened when, in seconds since the beginning: out of the records that the programs left, and of what people did. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct, field

from tunectl.artifacts.records import DriftWindow
from tunectl.canary.canary_store import Experiment
from tunectl.registry.release_state import ReleaseEvent, swap_entries
from tunectl.retraining.state_machine import ENDS, RetrainRun

Tone = Literal["calm", "moved", "work", "good", "bad"]
"""calm: as always. moved: something has changed. work: something is done about it. good, bad: how it ended."""
BY_HAND = "This webhook was delivered by hand, not by an Alertmanager."
LANES = ("people", "monitor", "alert", "retrain", "build", "canary", "champion")
TONES: dict[str, Tone] = {"promoted": "good", "rejected": "bad", "withdrawn": "bad", "failed": "bad"}


class Span(Struct, frozen=True):
    """Something that lasted."""

    lane: str
    label: str
    since: float
    until: float
    tone: Tone
    note: str = ""


class Mark(Struct, frozen=True):
    """A moment."""

    lane: str
    label: str
    at: float
    tone: Tone
    note: str = ""


class Promise(Struct, frozen=True):
    """Something that the loop says of itself, and whether it was so."""

    words: str
    held: bool
    evidence: str


class Timeline(Struct, frozen=True):
    """Everything that is drawn."""

    title: str
    began: datetime
    seconds: float
    spans: list[Span] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    promises: list[Promise] = field(default_factory=list)
    figures: list[tuple[str, str]] = field(default_factory=list)
    """Number and what it is."""

    @property
    def lanes(self) -> list[str]:
        """Those on which something happened, from top to bottom."""
        used = {span.lane for span in self.spans} | {mark.lane for mark in self.marks}
        return [lane for lane in LANES if lane in used]

    @property
    def kept(self) -> bool:
        """Whether every promise held."""
        return all(one.held for one in self.promises)

    @property
    def score(self) -> str:
        """How many promises held."""
        return f"{sum(one.held for one in self.promises)} of {len(self.promises)} promises held"


class Clock:
    """Seconds since the beginning of a moment."""

    def __init__(self, began: datetime) -> None:
        self.began = began

    def __call__(self, at: datetime) -> float:
        return round((at - self.began).total_seconds(), 2)


def windows(closed: Iterable[tuple[DriftWindow, datetime]], clock: Clock) -> list[Mark]:
    """Each window when its verdict was there."""
    found = []
    for one, made_at in closed:
        tone: Tone = "bad" if one.verdict == "drift" else "calm"
        found.append(
            Mark("monitor", one.verdict, clock(made_at), tone, f"window {one.id}, {one.rows} rows: {one.reason}")
        )
    return found


def retrains(runs: Iterable[RetrainRun], clock: Clock, now: float) -> list[Span | Mark]:
    """Each state from its record to the next one, and the end."""
    found: list[Span | Mark] = []
    for run in runs:
        ends = [clock(step.at) for step in run.steps[1:]] + [now]
        for step, end in zip(run.steps, ends, strict=True):
            if step.state in ENDS:
                tone = TONES.get(step.state, "moved")
                found.append(
                    Mark("retrain", step.state.replace("_", " "), clock(step.at), tone, f"{run.id}: {step.message}")
                )
            elif end > clock(step.at):
                label = step.state.replace("_", " ")
                found.append(Span("retrain", label, clock(step.at), end, "work", f"{run.id}: {step.message}"))
    return found


def alerts(runs: Iterable[RetrainRun], clock: Clock) -> list[Mark]:
    """When an alert began to fire, and when its webhook was taken."""
    found = []
    for run in runs:
        if run.trigger.kind != "alert":
            continue
        fired = datetime.fromisoformat(str(run.trigger.facts["startsAt"])).astimezone(UTC)
        found.append(Mark("alert", "fires", clock(fired), "moved", run.trigger.message))
        found.append(Mark("alert", "webhook", clock(run.trigger.at), "work", f"from {sender(run)}"))
    return found


def sender(run: RetrainRun) -> str:
    """Who sent the alert; it says so itself where it was no Alertmanager."""
    return "the story, by hand" if run.trigger.facts.get("description") == BY_HAND else run.trigger.author


def experiments(found: Iterable[Experiment], clock: Clock, now: float) -> list[Span]:
    """Each canary from its begin to its end."""
    tones: dict[str, Tone] = {"promote": "good", "harm": "bad"}
    spans = []
    for one in found:
        ended = clock(one.ended_at) if one.ended_at is not None else now
        tone = tones.get(one.decision or "", "work")
        reading = one.reading
        units = (
            f"{reading.champion_units + reading.challenger_units} people; {reading.reason}" if reading else "nobody yet"
        )
        spans.append(
            Span("canary", one.decision or "runs", clock(one.started_at), ended, tone, f"{one.challenger}: {units}")
        )
    return spans


def champions(log: Sequence[ReleaseEvent], clock: Clock, now: float) -> list[Span]:
    """Which release served when."""
    swaps = swap_entries(log)
    spans = []
    for place, one in enumerate(swaps):
        since = max(clock(datetime.fromisoformat(one.created_at)), 0.0)
        until = clock(datetime.fromisoformat(swaps[place + 1].created_at)) if place + 1 < len(swaps) else now
        if until > 0:
            spans.append(Span("champion", one.release[:6], since, until, "calm" if place == 0 else "good", one.message))
    return spans


def length(seconds: float) -> str:
    """A span of time for people: 0:07, 12:34, or 1:02:03."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"

"""What happened when, in seconds since the beginning: out of the records that the programs left, and of what people did. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct, field

from tunectl.artifacts.records import DriftWindow
from tunectl.canary.canary_store import CanaryRecord
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
        return all(promise.held for promise in self.promises)

    @property
    def score(self) -> str:
        """How many promises held."""
        return f"{sum(promise.held for promise in self.promises)} of {len(self.promises)} promises held"


class Clock:
    """Seconds since the beginning of a moment."""

    def __init__(self, began: datetime) -> None:
        self.began = began

    def __call__(self, at: datetime) -> float:
        return round((at - self.began).total_seconds(), 2)


def windows(closed: Iterable[tuple[DriftWindow, datetime]], clock: Clock) -> list[Mark]:
    """Each window when its verdict was there."""
    result = []
    for item, made_at in closed:
        tone: Tone = "bad" if item.verdict == "drift" else "calm"
        result.append(
            Mark("monitor", item.verdict, clock(made_at), tone, f"window {item.id}, {item.rows} rows: {item.reason}")
        )
    return result


def retrains(runs: Iterable[RetrainRun], clock: Clock, now: float) -> list[Span | Mark]:
    """Each state from its record to the next one, and the end."""
    result: list[Span | Mark] = []
    for run in runs:
        ends = [clock(step.at) for step in run.steps[1:]] + [now]
        for step, end in zip(run.steps, ends, strict=True):
            if step.state in ENDS:
                tone = TONES.get(step.state, "moved")
                result.append(
                    Mark("retrain", step.state.replace("_", " "), clock(step.at), tone, f"{run.id}: {step.message}")
                )
            elif end > clock(step.at):
                label = step.state.replace("_", " ")
                result.append(Span("retrain", label, clock(step.at), end, "work", f"{run.id}: {step.message}"))
    return result


def alerts(runs: Iterable[RetrainRun], clock: Clock) -> list[Mark]:
    """When an alert began to fire, and when its webhook was taken."""
    result = []
    for run in runs:
        if run.trigger.kind != "alert":
            continue
        fired = datetime.fromisoformat(str(run.trigger.facts["startsAt"])).astimezone(UTC)
        result.append(Mark("alert", "fires", clock(fired), "moved", run.trigger.message))
        result.append(Mark("alert", "webhook", clock(run.trigger.at), "work", f"from {sender(run)}"))
    return result


def sender(run: RetrainRun) -> str:
    """Who sent the alert; it says so itself where it was no Alertmanager."""
    return "the story, by hand" if run.trigger.facts.get("description") == BY_HAND else run.trigger.author


def experiments(result: Iterable[CanaryRecord], clock: Clock, now: float) -> list[Span]:
    """Each canary from its begin to its end."""
    tones: dict[str, Tone] = {"promote": "good", "harm": "bad"}
    spans = []
    for item in result:
        ended = clock(item.ended_at) if item.ended_at is not None else now
        tone = tones.get(item.decision or "", "work")
        reading = item.reading
        units = (
            f"{reading.champion_units + reading.challenger_units} people; {reading.reason}" if reading else "nobody yet"
        )
        spans.append(
            Span("canary", item.decision or "runs", clock(item.started_at), ended, tone, f"{item.challenger}: {units}")
        )
    return spans


def champions(log: Sequence[ReleaseEvent], clock: Clock, now: float) -> list[Span]:
    """Which release served when."""
    swaps = swap_entries(log)
    spans = []
    for index, swap in enumerate(swaps):
        since = max(clock(datetime.fromisoformat(swap.created_at)), 0.0)
        until = clock(datetime.fromisoformat(swaps[index + 1].created_at)) if index + 1 < len(swaps) else now
        if until > 0:
            spans.append(
                Span("champion", swap.release[:6], since, until, "calm" if index == 0 else "good", swap.message)
            )
    return spans


def length(seconds: float) -> str:
    """A span of time for people: 0:07, 12:34, or 1:02:03."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"

"""Two simulated days of metrics of the three programs, made with the real metric classes, minute by minute.

hours  0 to 12  baseline traffic; two night windows have too few rows for a verdict
hour   12       the prompts change: three windows shift, the third one makes drift
hours 14 to 23  alert, approval, training, gate, canary, promotion; no drift afterwards
hour   20       more requests than the limits allow
hours 30 to 32  a retrain by the calendar, rejected; later triggers are in its cooldown
hour   40       the disk of the inference log is full for a short time
hour   44       a manual retrain fails
hours 45 to 48  another change, and drift again, until the end
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec.structs import replace

from tunectl.artifacts.records import DriftSignal, DriftWindow
from tunectl.canary.canary_store import CanaryRecord
from tunectl.canary.sequential_test import CanaryResult, SequentialTestRules
from tunectl.monitoring.monitor_metrics import DriftMetrics
from tunectl.monitoring.self_calibration import CHANGES, CalibrationRow
from tunectl.monitoring.signals import SIGNALS
from tunectl.registry.release_state import ChampionPointer
from tunectl.retraining import state_machine
from tunectl.retraining.retrain_metrics import RetrainMetrics
from tunectl.retraining.run_store import TriggerOutcome
from tunectl.retraining.state_machine import RetrainRun, Transition, Trigger
from tunectl.serving.serving_metrics import ServingMetrics

HOURS = 48
COARSE, FINE, FROM = 2.0, 0.5, 41
"""Minutes between two scrapes of the past, and the hour from which they come more often: a board looks closely at the last six."""
JOBS = ("tunectl-serve", "tunectl-monitor", "tunectl-retrain")
OLD, NEW, WORSE = "4f1c9a7be2d05318", "b83e60d1f7a94c22", "0c5d2e9914ab77f3"
BASE = "smollm2-135m"
RULES = SequentialTestRules(
    share=0.2,
    margin=0,
    alpha=0.05,
    harm_alpha=0.05,
    guardrail_tolerance=0.05,
    min_units_per_variant=50,
    max_total_units=None,
)
ENDINGS = (("stop", 0.93), ("length", 0.05), ("cancelled", 0.014), ("error", 0.004), ("timeout", 0.002))


class SyntheticHistory:
    """A history that is built step by step; ``texts`` is the current scrape."""

    def __init__(self, begin: datetime, seed: int = 1) -> None:
        self.begin, self.at = begin, begin
        self.rng = random.Random(seed)
        self.serving, self.drift, self.loop = ServingMetrics(), DriftMetrics(3), RetrainMetrics(begin.timestamp())
        self.runs: list[RetrainRun] = []
        self.seen: list[TriggerOutcome] = []
        self.experiment: CanaryRecord | None = None
        self.evidence = 0.4
        self.plot: list[tuple[float, Callable[[], None]]] = sorted(self._schedule_events(), key=lambda one: one[0])
        self._set_champion(OLD)
        self.drift.record_calibration(self._figures())

    @property
    def hour(self) -> float:
        """Since the beginning."""
        return (self.at - self.begin).total_seconds() / 3600

    def step(self) -> None:
        """Tell the next minutes."""
        minutes = COARSE if self.hour < FROM else FINE
        self.at += timedelta(minutes=minutes)
        while self.plot and self.plot[0][0] <= self.hour:
            self.plot.pop(0)[1]()
        self._traffic(minutes)
        self.drift.record_success(self.at.timestamp())
        self.loop.last_reconcile = self.at.timestamp()

    def advance_to(self, until: datetime) -> None:
        """Tell all before that moment."""
        while self.at + timedelta(minutes=FINE) <= until:
            self.step()

    def texts(self) -> dict[str, bytes]:
        """The exposition of each program."""
        loop = self.loop.text(self.runs, self.seen, self.champion, self.experiment)
        return dict(zip(JOBS, (self.serving.render(), self.drift.render(), loop), strict=True))

    # the plot

    def _schedule_events(self) -> Iterator[tuple[float, Callable[[], None]]]:
        for hour in range(1, HOURS):
            yield hour, self._window
        yield (
            14.05,
            lambda: self._start_retrain("a", Trigger("alert", "alert-1", self.at, "something moved in 3 windows")),
        )
        for hour, state in ((14.1, "awaiting_approval"), (15, "data_gate"), (15.1, "training"), (16.5, "evaluating")):
            yield hour, lambda state=state: self._step(state)
        yield 16.9, lambda: self._step("staged")
        yield 17, self._canary
        for half in range(1, 12):
            yield 17 + half / 2, self._look
        yield 23, self._promote
        yield 30, lambda: self._start_retrain("b", Trigger("schedule", "spring", self.at, "monthly"))
        for hour, state in ((30.1, "data_gate"), (30.2, "training"), (31.6, "evaluating"), (32, "rejected")):
            yield hour, lambda state=state: self._step(state)
        for hour in (33, 35.5):
            yield hour, lambda: self._suppress("cooldown")
        yield 37, lambda: self._suppress("duplicate")
        yield 40, lambda: self.serving.inference_log_errors.inc(6)
        yield 43.5, lambda: self._start_retrain("c", Trigger("person", "person-1", self.at, "new flyers", "ada"))
        for hour, state in ((43.6, "data_gate"), (43.7, "training"), (44, "failed")):
            yield hour, lambda state=state: self._step(state)

    def _start_retrain(self, letter: str, trigger: Trigger) -> None:
        self.runs.append(state_machine.new_run(letter * 64, 1, trigger, self.at, {}))
        self.seen.append(TriggerOutcome(trigger, self.at, self.runs[-1].id))

    def _step(self, state: state_machine.State) -> None:
        self.runs[-1] = state_machine.apply_transition(self.runs[-1], Transition(state, self.at))

    def _suppress(self, reason: state_machine.Suppressed) -> None:
        self.seen.append(
            TriggerOutcome(Trigger("poll", f"poll-{self.hour}", self.at, "drift"), self.at, None, reason, "no")
        )

    def _set_champion(self, release: str) -> None:
        self.champion = ChampionPointer(
            release, None, self.at.isoformat(), "tunectl retrain controller", "synthetic history", 1
        )
        self.serving.set_model_info({"champion": (release, BASE)})

    def _canary(self) -> None:
        self._step("canary")
        until = self.at + timedelta(days=14)
        self.experiment = CanaryRecord(
            "e1", NEW, OLD, "satisfaction", RULES, 24, 20, self.at, until, "salt", "tunectl retrain controller", "drift"
        )
        self.serving.set_model_info({"champion": (OLD, BASE), "challenger": (NEW, BASE)})
        self._look()

    def _look(self) -> None:
        units = round((self.hour - 17) * 110) + 8
        half = 1.6 / math.sqrt(units)
        better = math.exp(min((self.hour - 17) * 0.62, 3.4))
        reading = CanaryResult(
            "running", "", units * 4, units, 0.61, 0.61 + 0.12 * min(1, units / 200), 0.12 - half, 0.12 + half,
            {"better": better, "harm": 1.1},
        )  # fmt: skip
        self.experiment = replace(self.experiment, reading=reading)

    def _promote(self) -> None:
        self._step("promoted")
        self.experiment = replace(self.experiment, ended_at=self.at, decision="promote")
        self._set_champion(NEW)
        self.evidence = 0.4
        self.drift.reset()

    def _window(self) -> None:
        hour = round(self.hour)
        changed = 12 <= hour < 23 or hour >= 45
        few = hour in (4, 5)
        self.evidence = self.evidence if few else self.evidence + 1.7 if changed else self.rng.uniform(0.1, 0.9)
        verdict = "insufficient" if few else "drift" if self.evidence >= 3 else "ok"
        signals = {} if few else {one.name: self._signal(one.name, one.method, changed) for one in SIGNALS}
        self.drift.record_window(
            DriftWindow(
                f"{hour:016x}", self.at - timedelta(hours=1), self.at, 31 if few else 300, verdict,
                verdict == "drift", self.champion.release, "accepted", signals, evidence=self.evidence,
            )
        )  # fmt: skip

    def _signal(self, name: str, method: str, changed: bool) -> DriftSignal:
        moved = changed and name in {"prompt_text", "prompt_tokens", "answer_text"}
        p_value = 0.0005 * self.rng.randint(1, 4) if moved else 0.0005 * self.rng.randint(60, 2000)
        threshold = 0.01
        score = threshold * (self.rng.uniform(2.0, 3.4) if moved else 1.35 - p_value - self.rng.uniform(0.3, 0.35))
        return DriftSignal(name, method, 300, 1000, max(score, 0.0005), threshold, p_value, shifted=moved)

    def _figures(self) -> list[CalibrationRow]:
        power = {"nothing": 0.001, "topic_15": 0.71, "topic_30": 0.99, "tone_20": 0.58, "tone_40": 0.97}
        return [
            CalibrationRow(
                change, side, 300, 1000, 400, {}, (max(power[change] - less, 0), 0.0, 1.0), (1.0, 0.99, 1.0), 600, 240
            )
            for change, _, _ in CHANGES
            for side, less in (("prompt", 0.0), ("answer", 0.005))
        ]

    # what people do

    def _traffic(self, minutes: float) -> None:
        day = 0.5 - 0.5 * math.cos(2 * math.pi * (self.hour % 24 - 3) / 24)
        rush = 20 <= self.hour < 20.5
        served = round(minutes * (self.rng.uniform(4, 7) + 13 * day + (20 if rush else 0)))
        slow = 5.0 if rush else 1.0 + 0.6 * day
        metrics, rng = self.serving, self.rng
        metrics.running.set(min(32, round(served / minutes / 3)))
        metrics.waiting.set(48 if rush else 0)
        if rush:
            metrics.rejected.labels("queue_full").inc(rng.randint(3, 9))
        for _ in range(served):
            end = rng.choices([name for name, _ in ENDINGS], [share for _, share in ENDINGS])[0]
            tokens = max(4, round(rng.gauss(52, 18)))
            first = rng.lognormvariate(-1.5, 0.5) * slow
            metrics.requests.labels(end).inc()
            metrics.queued.observe(first * 0.3)
            metrics.first.observe(first)
            for _ in range(4):
                metrics.between.observe(rng.lognormvariate(-3.4, 0.4) * slow)
            metrics.whole.observe(first + tokens * 0.035 * slow)
            metrics.prompt_tokens.inc(max(8, round(rng.gauss(140, 50))))
            metrics.generation_tokens.inc(tokens)
            if rng.random() < 0.09:
                kind = rng.choices(["thumb", "rating", "click", "conversion", "edit"], [5, 2, 4, 1, 1])[0]
                variant = (
                    "challenger"
                    if self.experiment and not self.experiment.ended_at and rng.random() < 0.2
                    else "champion"
                )
                metrics.feedback.labels(kind, variant).inc()


def build_history(seed: int = 1, end: datetime | None = None) -> SyntheticHistory:
    """Build the whole history, which ends at ``end``."""
    end = end or datetime.now(UTC)
    history = SyntheticHistory(end - timedelta(hours=HOURS), seed)
    history.advance_to(end)
    return history


def write_history(path: Path, instances: dict[str, str], end: datetime, seed: int = 1) -> SyntheticHistory:
    """Write the past as OpenMetrics with a time on each line, for ``promtool tsdb create-blocks-from openmetrics``; return the whole history."""
    history = SyntheticHistory(end - timedelta(hours=HOURS), seed)
    with path.open("w", encoding="utf-8") as stream:
        while history.at < end - timedelta(minutes=1):
            history.step()
            for job, text in history.texts().items():
                stream.writelines(_add_timestamps(job, instances[job], text.decode(), history.at.timestamp()))
        stream.write("# EOF\n")
    history.advance_to(end)
    return history


def _add_timestamps(job: str, instance: str, text: str, at: float) -> Iterator[str]:
    labels = f'instance="{instance}",job="{job}"'
    samples = [line for line in text.splitlines() if line and line[0] != "#" and "_created" not in line]
    for line in samples:
        name, _, value = line.rpartition(" ")
        name = name.replace("{", "{" + labels + ",", 1) if "{" in name else f"{name}{{{labels}}}"
        yield f"{name} {value} {at:.0f}\n"
    yield f"up{{{labels}}} 1 {at:.0f}\n"
    yield f"scrape_samples_scraped{{{labels}}} {len(samples)} {at:.0f}\n"


def list_exposed_series() -> dict[str, set[str]]:
    """List every series name that the three programs expose, with its labels as ``name="value"``."""
    series: dict[str, set[str]] = {}
    history = build_history()
    for text in history.texts().values():
        for line in text.decode().splitlines():
            if not line.startswith("#"):
                name, labels = re.fullmatch(r"(\w+)(?:\{(.*)\})? \S+", line).groups()
                series.setdefault(name, set()).update(re.findall(r'\w+="[^"]*"', labels or ""))
    return series

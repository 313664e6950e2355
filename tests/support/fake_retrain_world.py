"""The driver of retrains with a world in memory around it: time is given, nothing is slow, and kills come where they are wanted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from tunectl.artifacts.records import DriftWindow
from tunectl.canary.sequential_test import CanaryResult
from tunectl.config.schema.retrain import RetrainingConfig
from tunectl.retraining import promotion_gate
from tunectl.retraining.activities import RetrainRequest, StepResult
from tunectl.retraining.controller import RetrainController
from tunectl.retraining.cron import next_slot
from tunectl.retraining.run_store import RunStore
from tunectl.retraining.state_machine import Trigger

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
SECRET = b"s" * 64


class Killed(BaseException):
    """What a kill -9 is to a test: nothing catches it."""


def settings_of(**changes) -> RetrainingConfig:
    values = yaml.safe_load((ROOT / "conf/retrain/default.yaml").read_text())
    values["approval"] = {**values["approval"], "training": "none"}
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            values[section] = {**values[section], name: value}
        else:
            values[key] = value
    return RetrainingConfig.model_validate(values)


def window(number=1, verdict="drift"):
    return DriftWindow(f"w{number}", NOW, NOW, 100, verdict, True, "r0", "training", reason="prompts moved")


class FakeActivities:
    """The world, in memory; ``deadly`` counts calls down to a kill before or after the work."""

    def __init__(self):
        self.champion, self.serving, self.asked, self.done, self.trained = "r0", None, [], [], 0
        self.window, self.examined = window(), NOW - timedelta(hours=2)
        self.enough, self.passed, self.verdict, self.decision = True, True, "promote", "promote"
        self.trouble: Exception | None = None
        self.deadly: int | None = None

    def _call(self, work):
        for moment in ("before", "after"):
            if self.deadly is not None:
                self.deadly -= 1
                if self.deadly < 0:
                    self.deadly = None
                    raise Killed(moment)
            if moment == "before":
                result = work()
        return result

    def drift(self, now):
        return (self.window, self.examined) if self.window else None

    def prepare(self, trigger, now):
        if self.window is None and trigger.kind in ("alert", "poll"):
            return None
        name = self.window.id if trigger.kind in ("alert", "poll") else trigger.id
        return self._call(
            lambda: RetrainRequest(name.ljust(64, "0"), {"snapshot": {"id": "s1", "inferences": 30, "feedback": 40}})
        )

    def data(self, run):
        return self._call(lambda: StepResult(self.enough, "12 rows", {"examples": 12, "left_out": {"user_cap": 2}}))

    def train(self, run, stop):
        def work():
            self.trained += 1
            if self.trouble:
                raise self.trouble
            return StepResult(self.passed, "release r1", {"release": f"r-{run.id}"})

        return self._call(work)

    def judge(self, run, stop):
        return self._call(lambda: promotion_gate.GateVerdict(self.verdict, "the gate's words"))

    def start_canary(self, run, now):
        until = (now + timedelta(days=14)).isoformat()
        return self._call(lambda: setattr(self, "serving", run.id) or {"until": until})

    def poll_canary(self, run, now):
        return self._call(lambda: CanaryResult(self.decision, "words", 100, 100, 0.5, 0.6, 0.0, 0.2, {"better": 30.0}))

    def stop_canary(self, run, reading, now):
        self._call(lambda: setattr(self, "serving", None))

    def promote(self, run, why, now):
        def work():
            self.champion, self.serving = f"r-{run.id}", None
            return {"release": self.champion}

        return self._call(work)

    def is_promoted(self, run):
        return self.champion == f"r-{run.id}"

    def cleanup(self, run):
        self._call(lambda: setattr(self, "serving", None))

    def notify_finished(self, run):
        self._call(lambda: self.done.append((run.id, run.state)))

    def request_approval(self, run, question, link):
        self._call(lambda: self.asked.append((question, link)))


def driver(folder, activities, seconds=lambda: 0.0, **changes) -> RetrainController:
    return RetrainController(
        RunStore(Path(folder)), activities, settings_of(**changes), SECRET, next_slot, seconds=seconds
    )


def walk(one: RetrainController, now=NOW, most=40) -> str:
    for _ in range(most):
        if not one.reconcile(now):
            break
    runs = one.store.runs()
    return runs[-1].state if runs else "nothing"


def states(one: RetrainController) -> list[str]:
    return [step.state for step in one.store.runs()[-1].steps]


def alert(name="alert-1"):
    return Trigger("alert", name, NOW, "the world changed")

"""Side effects of a retrain step. Each must be idempotent: the controller repeats a step whose result was not recorded before a kill."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol

from msgspec import Struct, field

from tunectl.artifacts.records import DriftWindow
from tunectl.canary.sequential_test import ExperimentResult
from tunectl.inference_log.log_store import InferenceLog
from tunectl.retraining import promotion_gate
from tunectl.retraining.signed_links import ApprovalQuestion
from tunectl.retraining.state_machine import RetrainRun, Trigger

LiveOpener = Callable[[], AbstractContextManager[InferenceLog]]
"""Opens the inference log."""


class RetrainRequest(Struct, frozen=True):
    """Key and frozen inputs of a run."""

    key: str
    facts: dict[str, Any]


class StepResult(Struct, frozen=True):
    """Result of a step; ``words`` are for the report, ``facts`` for the record of the run."""

    fine: bool
    words: str
    facts: dict[str, Any] = field(default_factory=dict)


class RetrainActivities(Protocol):
    """Side effects of the state machine; tests pass fakes. A TunectlError fails the run with its message."""

    def drift(self, now: datetime) -> tuple[DriftWindow, datetime] | None:
        """Return the newest window of the champion with the verdict drift, and when it was examined."""
        ...

    def prepare(self, trigger: Trigger, now: datetime) -> RetrainRequest | None:
        """Return key and frozen inputs of a trigger; None for an alert without a drift window."""
        ...

    def data(self, run: RetrainRun) -> StepResult:
        """Return whether there is enough training data."""
        ...

    def train(self, run: RetrainRun, stop: threading.Event) -> StepResult:
        """Rebuild and register the release, ``facts["release"]``. Its ``fine`` is False where a gate of the pipeline failed."""
        ...

    def judge(self, run: RetrainRun, stop: threading.Event) -> promotion_gate.GateVerdict:
        """Compare the challenger with the champion."""
        ...

    def start_canary(self, run: RetrainRun, now: datetime) -> dict[str, Any]:
        """Send a share of the traffic to the challenger.

        Raises  CanaryRunningError while another one runs.
        """
        ...

    def poll_canary(self, run: RetrainRun, now: datetime) -> ExperimentResult | None:
        """Return the experiment as of now; None where somebody ended it by hand."""
        ...

    def stop_canary(self, run: RetrainRun, reading: ExperimentResult | None, now: datetime) -> None:
        """Remove the challenger from the traffic."""
        ...

    def promote(self, run: RetrainRun, message: str, now: datetime) -> dict[str, Any]:
        """Promote the challenger, and update what depends on the champion."""
        ...

    def is_promoted(self, run: RetrainRun) -> bool:
        """Return whether the challenger is champion: a promotion was interrupted after the change, or a person was faster."""
        ...

    def cleanup(self, run: RetrainRun) -> None:
        """Remove what a finished run left: its canary, processes and worktree."""
        ...

    def notify_finished(self, run: RetrainRun) -> None:
        """Notify of the end of a run, once."""
        ...

    def request_approval(self, run: RetrainRun, question: ApprovalQuestion, link: str) -> None:
        """Notify the people who may approve, with the link."""
        ...

"""What the driver of a retrain needs done; each may be done twice, because a kill may come between the work and its record."""

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
    """The work that a trigger stands for."""

    key: str
    facts: dict[str, Any]


class StepResult(Struct, frozen=True):
    """How a step ended."""

    fine: bool
    words: str
    facts: dict[str, Any] = field(default_factory=dict)


class RetrainActivities(Protocol):
    """The world outside the state machine; tests pass fakes. Any TunectlError fails the run, with its words."""

    def drift(self, now: datetime) -> tuple[DriftWindow, datetime] | None:
        """Return the newest window that says drift of the champion that serves, and when it was examined."""
        ...

    def prepare(self, trigger: Trigger, now: datetime) -> RetrainRequest | None:
        """Return key and frozen data of a trigger; None for an alert without such a drift window."""
        ...

    def data(self, run: RetrainRun) -> StepResult:
        """Return whether there is enough to learn."""
        ...

    def train(self, run: RetrainRun, stop: threading.Event) -> StepResult:
        """Rebuild, and put what was packaged into the store: ``facts["release"]``. Not fine: a gate of the pipeline said no."""
        ...

    def judge(self, run: RetrainRun, stop: threading.Event) -> promotion_gate.GateVerdict:
        """Return challenger against champion."""
        ...

    def start_canary(self, run: RetrainRun, now: datetime) -> dict[str, Any]:
        """Put the challenger on a share of the traffic.

        Raises  Occupied while another one is.
        """
        ...

    def poll_canary(self, run: RetrainRun, now: datetime) -> ExperimentResult | None:
        """Return the experiment as of now; None where somebody ended it by hand."""
        ...

    def stop_canary(self, run: RetrainRun, reading: ExperimentResult | None, now: datetime) -> None:
        """Take the challenger off the traffic."""
        ...

    def promote(self, run: RetrainRun, message: str, now: datetime) -> dict[str, Any]:
        """Make the challenger champion, with all that follows from it."""
        ...

    def is_promoted(self, run: RetrainRun) -> bool:
        """Return whether the challenger is champion: a promotion was cut, or a person was faster."""
        ...

    def cleanup(self, run: RetrainRun) -> None:
        """Leave nothing of a run that has ended: no experiment, no process, no worktree."""
        ...

    def notify_finished(self, run: RetrainRun) -> None:
        """Let others know of the end of a run; those who know it already are not told again."""
        ...

    def request_approval(self, run: RetrainRun, question: ApprovalQuestion, link: str) -> None:
        """Tell people that something waits for them."""
        ...

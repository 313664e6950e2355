"""Side effects of a retrain step. Each must be idempotent: the controller repeats a step whose result was not recorded before a kill."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol

from msgspec import Struct, field

from tunectl.artifacts.records import DriftWindow
from tunectl.canary.sequential_test import CanaryResult
from tunectl.inference_log.log_store import InferenceLog
from tunectl.retraining import promotion_gate
from tunectl.retraining.signed_links import ApprovalQuestion
from tunectl.retraining.state_machine import RetrainRun, Trigger

LiveOpener = Callable[[], AbstractContextManager[InferenceLog]]
"""Opens the inference log."""


class RetrainRequest(Struct, frozen=True):
    """Key of a run, by which duplicates are recognized, and its frozen inputs (``facts``: commit, snapshot, digests)."""

    key: str
    facts: dict[str, Any]


class StepResult(Struct, frozen=True):
    """Result of one step of a retrain: whether the run may continue (``fine``), a sentence for the report, and facts for the run's record."""

    fine: bool
    summary: str
    facts: dict[str, Any] = field(default_factory=dict)


class RetrainActivities(Protocol):
    """Side effects of a retrain run, which the controller calls; tests pass fakes. A TunectlError fails the run with its message."""

    def drift(self, now: datetime) -> tuple[DriftWindow, datetime] | None:
        """Return (newest window of the champion, time of its test) if its verdict is drift; else None."""
        ...

    def prepare(self, trigger: Trigger, now: datetime) -> RetrainRequest | None:
        """Return the key and the frozen inputs of the run that ``trigger`` would start; None for an alert without a drift window."""
        ...

    def data(self, run: RetrainRun) -> StepResult:
        """Check the amount of training data; ``fine`` is False where it is below ``retrain.data``."""
        ...

    def train(self, run: RetrainRun, stop: threading.Event) -> StepResult:
        """Build and register the release; return it as ``facts["release"]``. ``fine`` is False where a gate of the pipeline failed."""
        ...

    def judge(self, run: RetrainRun, stop: threading.Event) -> promotion_gate.GateVerdict:
        """Return the gate's verdict on the challenger, compared with the champion."""
        ...

    def start_canary(self, run: RetrainRun, now: datetime) -> dict[str, Any]:
        """Send a share of the traffic to the challenger; return facts for the record of the run.

        Raises  CanaryRunningError while another one runs.
        """
        ...

    def poll_canary(self, run: RetrainRun, now: datetime) -> CanaryResult | None:
        """Return the result of the canary as of now; None where somebody ended it by hand."""
        ...

    def stop_canary(self, run: RetrainRun, reading: CanaryResult | None, now: datetime) -> None:
        """Remove the challenger from the traffic; ``reading`` is the last result of the canary."""
        ...

    def promote(self, run: RetrainRun, message: str, now: datetime) -> dict[str, Any]:
        """Promote the challenger, and update what depends on the champion; return facts for the record of the run."""
        ...

    def is_promoted(self, run: RetrainRun) -> bool:
        """Return whether the challenger is champion: a promotion was interrupted after the change, or a person was faster."""
        ...

    def cleanup(self, run: RetrainRun) -> None:
        """Remove what an ended run left: its canary, processes and worktree."""
        ...

    def notify_finished(self, run: RetrainRun) -> None:
        """Send people the end of a run, once."""
        ...

    def request_approval(self, run: RetrainRun, question: ApprovalQuestion, link: str) -> None:
        """Send the people who may approve the signed ``link``; ``question`` is what to approve: the training or the promotion."""
        ...

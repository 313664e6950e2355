"""What the driver of a retrain needs done; each may be done twice, because a kill may come between the work and its record."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol

from msgspec import Struct, field

from tunectl.artifacts.records import DriftWindow
from tunectl.live.store import LiveStore
from tunectl.release import gate
from tunectl.release.experiment import Reading
from tunectl.release.links import Question
from tunectl.release.machine import Run, Trigger

LiveOpener = Callable[[], AbstractContextManager[LiveStore]]
"""Opens the live store."""


class Prepared(Struct, frozen=True):
    """The work that a trigger stands for."""

    key: str
    facts: dict[str, Any]


class Found(Struct, frozen=True):
    """How a step ended."""

    fine: bool
    words: str
    facts: dict[str, Any] = field(default_factory=dict)


class Hands(Protocol):
    """The world outside the state machine; tests pass fakes. Any TunectlError fails the run, with its words."""

    def drift(self, now: datetime) -> tuple[DriftWindow, datetime] | None:
        """The newest window that says drift of the champion that serves, and when it was examined."""
        ...

    def prepare(self, trigger: Trigger, now: datetime) -> Prepared | None:
        """Key and frozen data of a trigger; None for an alert without such a drift window."""
        ...

    def data(self, run: Run) -> Found:
        """Whether there is enough to learn."""
        ...

    def train(self, run: Run, stop: threading.Event) -> Found:
        """Rebuild, and put what was packaged into the store: ``facts["release"]``. Not fine: a gate of the pipeline said no."""
        ...

    def judge(self, run: Run, stop: threading.Event) -> gate.Verdict:
        """Challenger against champion."""
        ...

    def begin(self, run: Run, now: datetime) -> dict[str, Any]:
        """Put the challenger on a share of the traffic.

        Raises  Occupied while another one is.
        """
        ...

    def look(self, run: Run, now: datetime) -> Reading | None:
        """The experiment as of now; None where somebody ended it by hand."""
        ...

    def end(self, run: Run, reading: Reading | None, now: datetime) -> None:
        """Take the challenger off the traffic."""
        ...

    def promote(self, run: Run, why: str, now: datetime) -> dict[str, Any]:
        """Make the challenger champion, with all that follows from it."""
        ...

    def won(self, run: Run) -> bool:
        """Whether the challenger is champion: a promotion was cut, or a person was faster."""
        ...

    def tidy(self, run: Run) -> None:
        """Leave nothing of a run that has ended: no experiment, no process, no worktree."""
        ...

    def concluded(self, run: Run) -> None:
        """Let others know of the end of a run; those who know it already are not told again."""
        ...

    def ask(self, run: Run, question: Question, link: str) -> None:
        """Tell people that something waits for them."""
        ...

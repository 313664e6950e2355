"""The scenario of the demo: a project, its traffic, and the sizes. The example and the test with a tiny model differ only here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class UserRequest(Protocol):
    """A request of a simulated user."""

    @property
    def brief(self) -> str:
        """The prompt."""
        ...

    @property
    def ad(self) -> str:
        """The reference answer, which a user sends as an edit."""
        ...


@dataclass(frozen=True)
class SyntheticTraffic:
    """Requests before and after the change, and a score of answers."""

    baseline_requests: Callable[[], Iterator[UserRequest]]
    """Gives requests before the change, without end."""
    changed_requests: Callable[[], Iterator[UserRequest]]
    """Gives requests after the change, without end."""
    score_answer: Callable[[UserRequest, str], float]
    """The probability, 0 to 1, that a user gives the answer a thumbs up."""


@dataclass(frozen=True)
class BadChallenger:
    """A challenger that must not stay champion."""

    release: str
    defect: str
    """What is wrong with it."""


@dataclass(frozen=True)
class DemoScenario:
    """See the module docstring."""

    project: Path
    """A Git and DVC project with a champion, a clean tree, and its settings in conf/overrides.yaml."""
    traffic: SyntheticTraffic
    poor: BadChallenger
    """The gate must reject it."""
    build_harmful: Callable[[], BadChallenger]
    """Builds a challenger that passes the gate and that its canary test must stop; called while the retrained champion serves."""
    rows: int = 200
    """Requests of a window: monitor.window.max_rows. One window shows the drift, so it must have enough edits to train on."""
    baseline: int = 1
    """Windows that become the reference of prompts."""
    quiet: int = 2
    """Windows that must show no drift."""
    edits: float = 0.9
    """Share of the feedback after the change that is an edit."""
    workers: int = 24
    """Concurrent requests."""
    batch: int = 48
    """Requests a round during a canary test."""
    background_rate: float = 0.1
    """Requests a second during a build."""
    build_seconds: float = 1500
    """Longest a build may take."""
    settle_seconds: float = 120
    """Longest that any other step may take."""
    max_rounds: int = 40
    """Rounds after which a canary test counts as undecided."""
    overrides: Sequence[str] = field(default_factory=tuple)
    """Overrides of the settings of the three programs."""

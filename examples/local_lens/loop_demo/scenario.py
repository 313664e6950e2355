"""What is played: a project, its people, and how many of them come. The example and the test with a tiny model differ only here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class Commission(Protocol):
    """Something that a person asks for."""

    @property
    def brief(self) -> str:
        """What they say."""
        ...

    @property
    def ad(self) -> str:
        """What they would have written themselves."""
        ...


@dataclass(frozen=True)
class Town:
    """Who asks, and what they think of answers."""

    everyday: Callable[[], Iterator[Commission]]
    """What people ask before the change, without end."""
    changed: Callable[[], Iterator[Commission]]
    """What they ask afterwards."""
    liking: Callable[[Commission, str], float]
    """How much a person likes an answer, 0 to 1."""


@dataclass(frozen=True)
class Bad:
    """A challenger that was made to be bad, and says so."""

    release: str
    what: str
    """What is wrong with it."""


@dataclass(frozen=True)
class Scene:
    """See the module's text."""

    project: Path
    """A Git and DVC project with a champion, a clean tree, and its settings in conf/overrides.yaml."""
    town: Town
    poor: Bad
    """Bad enough for the gate."""
    harmful: Bad
    """Better by the gate's measure, and worse for people."""
    rows: int = 200
    """Of a window of traffic: monitor.window.max_rows. The change is seen in one window, so people must have written enough in it."""
    baseline: int = 1
    """Windows that become the reference of prompts."""
    quiet: int = 2
    """Windows in which nothing may be found."""
    edits: float = 0.9
    """Of those who speak after the change, the share that writes a better ad."""
    workers: int = 24
    """People who wait for an answer at the same time."""
    batch: int = 48
    """People a round while a challenger is tried."""
    murmur: float = 0.2
    """Requests a second while the model is rebuilt."""
    build_seconds: float = 1500
    """Longest a build may take."""
    settle_seconds: float = 120
    """Longest that anything else may take."""
    most_rounds: int = 40
    """Rounds after which an experiment is given up."""
    words: Sequence[str] = field(default_factory=tuple)
    """Settings of the three programs for this machine."""

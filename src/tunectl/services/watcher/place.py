"""Where a retrain works: paths of the watcher below a project's hidden folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunectl.artifacts.layout import Layout
from tunectl.release.machine import Run

BRANCH = "tunectl/retrain/"


@dataclass(frozen=True, slots=True)
class Place:
    """See the module's text."""

    layout: Layout

    @property
    def book(self) -> Path:
        """Records of all runs."""
        return self.layout.retrain

    @property
    def worktree(self) -> Path:
        """The checkout that a run trains in; one at a time."""
        return self.book / "worktree"

    @property
    def secret(self) -> Path:
        """Signs the links."""
        return self.book / "secret"

    def log(self, run: Run) -> Path:
        """What a run's processes printed."""
        return self.book / "logs" / f"{run.id}.log"

    def named(self, run: Run) -> Path:
        """The ``live/window.json`` of a run, before it is committed."""
        return self.book / "windows" / f"{run.id}.json"

    def scratch(self, run: Run) -> Path:
        """Questions and answers of the gate."""
        return self.layout.gates / run.id

    @property
    def mark(self) -> str:
        """In the environment of everything that a run starts."""
        return str(self.book.absolute())

    @staticmethod
    def branch(run: Run) -> str:
        """Where a run's commits go."""
        return BRANCH + run.id

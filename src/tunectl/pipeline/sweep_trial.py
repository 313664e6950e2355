"""One trial of a sweep: ``tunectl repro`` in a separate worktree, with DVC's cache of the project."""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

from tunectl.artifacts import atomic_io, lock
from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.sweeps import trial_pruning
from tunectl.backends.system import supervised_process
from tunectl.backends.vcs import build_worktree, git_worktree
from tunectl.config.schema.sweep import Sweep
from tunectl.core.errors import TrialPrunedError, UsageError
from tunectl.pipeline.required_extras import list_upstream_stages
from tunectl.sweeps.trial_records import SweepDefinition, TrialClaim, TrialOutcome, TrialSummary

NOTE = ".tunectl/trial.json"
"""File in the worktree that names its trial."""
PRUNED = TrialPrunedError.exit_code


class TrialRunner(Protocol):
    """Runs one trial of a sweep; in production a repro in a worktree, in tests a fake."""

    def run(self, claim: TrialClaim, note: dict[str, Any], stop: threading.Event) -> TrialOutcome | None:
        """Run a trial to its end and return its outcome; None where ``stop`` was set.

        ``claim``: the trial and its settings; ``note``: address and settings with which its stages report to the sweep.
        """


class WorktreeTrials:
    """Builds the trials of one sweep on this machine, each in a Git worktree with the project's DVC cache."""

    def __init__(self, layout: ProjectPaths, section: Sweep, definition: SweepDefinition) -> None:
        self._layout = layout
        self._section = section
        self._definition = definition
        self.folder = layout.sweeps / section.name

    def run(self, claim: TrialClaim, note: dict[str, Any], stop: threading.Event) -> TrialOutcome | None:
        """Build the trial, with ``note`` in its environment, and return the metrics of its objective; None where ``stop`` was set.

        A worker that is late with its heartbeats, as after a suspend, loses its trial but still works in the worktree: its end is awaited.
        Raises  UsageError where the metric of the objective is absent; InfrastructureError of Git and DVC.
        """
        name = f"trial-{claim.number}"
        with ExitStack() as stack:
            while not stop.is_set():
                with suppress(lock.LockTimeoutError):
                    stack.enter_context(self._lock(name, timeout_seconds=1.0))
                    break
            if stop.is_set():
                return None
            started = time.monotonic()
            environment = {trial_pruning.VARIABLE: json.dumps(note)}
            project, code = self.build(name, claim.overrides, self._section.stage, environment, stop)
            if stop.is_set():
                return None
            outcome = self._read_outcome(project, code, time.monotonic() - started)
            self.remove(name)
            return outcome

    def build(
        self, name: str, overrides: Sequence[str], stage: str, environment: Mapping[str, str], stop: threading.Event
    ) -> tuple[Path, int]:
        """Build up to ``stage`` in the worktree ``name``; return (the project's folder in it, exit code of ``tunectl repro``)."""
        folder = self.folder / name
        mark = str(folder.absolute())
        supervised_process.kill_marked(mark)  # what a killed worker left running here
        project = self._open_worktree(folder, overrides, mark)
        arguments = ["repro", "--unattended", "--to", stage, *self._definition.overrides, *overrides]
        code = supervised_process.run(
            [sys.executable, "-m", "tunectl", *arguments],
            cwd=project,
            environment=build_worktree.build_environment(project) | dict(environment),
            mark=mark,
            log=self.folder / "logs" / f"{name}.log",
            stop=stop,
            limits=supervised_process.ProcessLimits(math.inf),
        )
        return project, code

    def remove(self, name: str) -> None:
        """Remove the worktree ``name`` that ``build`` made."""
        note = git_worktree.project_path(self._layout.root, self.folder / name) / NOTE
        note.unlink(missing_ok=True)  # first: a worktree whose removal is cut off must not be built in again
        git_worktree.remove(self._layout.root, self.folder / name)

    def remove_ended(self, trials: Sequence[TrialSummary]) -> None:
        """Remove the worktrees of those ``trials`` that have ended without them: on another machine, or as their workers died too often."""
        for trial in trials:
            name = f"trial-{trial.number}"
            if trial.state not in ("waiting", "running") and (self.folder / name).exists():
                with suppress(lock.LockTimeoutError), self._lock(name):
                    self.remove(name)

    def _lock(self, name: str, timeout_seconds: float = 0.0) -> AbstractContextManager[None]:
        """Return the lock of the worktree ``name``; who holds it builds there or removes it."""
        return lock.file_lock(self.folder / "locks" / f"{name}.lock", "tunectl sweep", timeout_seconds=timeout_seconds)

    def _open_worktree(self, path: Path, overrides: Sequence[str], mark: str) -> Path:
        """Return the worktree of a trial: that of an earlier attempt, whose checkpoints are kept, or a new one."""
        root = self._layout.root
        project = git_worktree.project_path(root, path)
        identity = {"commit": self._definition.commit, "overrides": list(overrides)}
        note = project / NOTE
        if note.is_file() and atomic_io.read_json(note) == identity:
            git_worktree.remove_stale_locks(project)
            return project
        project = build_worktree.add(root, path, None, self._definition.commit, {supervised_process.MARK: mark})
        atomic_io.write_json(note, identity)
        return project

    def _read_outcome(self, project: Path, code: int, seconds: float) -> TrialOutcome:
        layout = ProjectPaths(project)
        stages = list_upstream_stages([self._section.stage])
        finished = code in {0, 3}  # 3: a gate said no, which a trial may; its metrics are there
        if not finished:  # what follows the stage that it ended in was neither built nor reused
            ended_in: str = atomic_io.read_json(layout.failure)["stage"] if layout.failure.is_file() else ""
            stages = stages[: stages.index(ended_in) + 1] if ended_in in stages else []
        executed = set(layout.executed.read_text(encoding="utf-8").split()) if layout.executed.is_file() else set()
        facts: dict[str, Any] = {
            "seconds": round(seconds, 1),
            "stages": len(stages),
            "reused": sum(stage not in executed for stage in (stages if finished else stages[:-1])),
        }
        if code == PRUNED:
            reason: str = atomic_io.read_json(layout.failure)["message"]
            return TrialOutcome(state="pruned", reason=reason, **facts)
        if not finished:
            return TrialOutcome(state="failed", reason=build_worktree.describe_failure(project, code), **facts)
        values = [read_metric(layout, goal.metric) for goal in self._section.objective]
        if any(value is None or not math.isfinite(value) for value in values):
            listed = ", ".join(
                f"{goal.metric} is {value}" for goal, value in zip(self._section.objective, values, strict=True)
            )
            return TrialOutcome(state="failed", reason=listed, **facts)
        return TrialOutcome(state="complete", values=[float(value) for value in values if value is not None], **facts)


def read_metric(layout: ProjectPaths, metric: str) -> float | None:
    """Return a number of ``artifacts/metrics/STAGE.json``; None where it is null.

    Raises  UsageError with the nearest name where there is no such number.
    """
    stage, *path = metric.split(".")
    file = layout.metrics(stage)
    if not file.is_file():
        raise UsageError(
            f"sweep.objective {metric}: {file} does not exist, so the stage {stage} has not run",
            hint=f"run it: tunectl repro --to {stage}",
        )
    value: Any = atomic_io.read_json(file)
    for depth, part in enumerate(path):
        if not isinstance(value, dict) or part not in value:
            names = sorted(value) if isinstance(value, dict) else []
            near = get_close_matches(part, names, 1)
            above = ".".join([stage, *path[:depth]])
            guess = f"did you mean {above}.{near[0]}?" if near else f"{above} has {', '.join(names) or 'one value'}"
            raise UsageError(f"sweep.objective {metric}: key {'.'.join(path[: depth + 1])} is not in {file}; {guess}")
        value = value[part]
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise UsageError(
            f"sweep.objective {metric}: {'.'.join(path)} in {file} is {value!r}, not a number",
            hint=f"name a metric that is a number; {file} has all of this stage",
        )
    return value

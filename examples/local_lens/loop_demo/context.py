"""The context of a chapter: scenario, running programs, simulated users, records and clock."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import msgspec

from loop_demo.console_log import ConsoleLog
from loop_demo.processes import OFFLINE_ENV, NotReadyError, Stack, plain_environment, wait_until
from loop_demo.scenario import BadChallenger, DemoScenario, UserRequest
from loop_demo.simulated_users import SimulatedUsers
from loop_demo.timeline import Category, Clock, Span
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import DriftWindow
from tunectl.backends.storage import inference_log_sql
from tunectl.canary.canary_store import CanaryStore
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining.run_store import RunStore
from tunectl.retraining.state_machine import RetrainRun

URL = "sqlite:///.tunectl/inference_log/inference_log.sqlite"
STAGE = re.compile(rb"Running stage '(\w+)'")
POLL_SECONDS = 0.1
"""Seconds between two polls of the serving releases."""
CATEGORIES: Mapping[str, Category] = {
    "promoted": "good",
    "rejected": "bad",
    "withdrawn": "bad",
    "failed": "bad",
    "insufficient": "bad",
}


class DemoAbortedError(Exception):
    """The demo cannot continue; the message says why."""


class VariantPoller:
    """Polls the service ten times a second and records when it starts and stops serving a release."""

    def __init__(self, get_variants: Callable[[], dict[str, str]]) -> None:
        self._get_variants, self._stop = get_variants, threading.Event()
        self.history: list[tuple[datetime, dict[str, str]]] = []
        self._thread = threading.Thread(target=self._poll, name="variant-poller", daemon=True)

    def _poll(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            result = self._get_variants()
            if result and (not self.history or self.history[-1][1] != result):
                self.history.append((datetime.now(UTC), result))

    def __enter__(self) -> VariantPoller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def seconds_until(self, moment: datetime, holds: Callable[[dict[str, str]], bool]) -> float | None:
        """Return the seconds from ``moment`` until a poll for which ``holds`` is true; None if there is none."""
        before = [variants for index, variants in self.history if index <= moment]
        if before and holds(before[-1]):
            return 0.0
        later = (index for index, variants in self.history if index > moment and holds(variants))
        result = next(later, None)
        return None if result is None else (result - moment).total_seconds()


@dataclass
class DemoContext:
    """See the module docstring."""

    scenario: DemoScenario
    stack: Stack
    users: SimulatedUsers
    console_log: ConsoleLog
    poller: VariantPoller
    began: datetime
    spans: list[Span] = field(default_factory=list)
    """Phases of the simulated traffic, and stages of builds."""
    drifted: tuple[DriftWindow, datetime] | None = None
    """The window with the verdict drift."""
    changed_at: datetime | None = None
    """When the first changed request was sent."""

    def __post_init__(self) -> None:
        self.registry = ReleaseRegistry(self.scenario.project / ".tunectl" / "releases")
        self.run_store, self.canaries = (
            RunStore(ProjectPaths(self.scenario.project).retrain),
            CanaryStore(self.registry),
        )
        self.baseline_requests = self.scenario.traffic.baseline_requests()
        self.changed_requests = self.scenario.traffic.changed_requests()
        self.clock = Clock(self.began)

    @property
    def champion(self) -> str:
        """The champion of the registry."""
        pointer = self.registry.champion()
        if pointer is None:
            raise DemoAbortedError(f"{self.registry.root} has no champion")
        return pointer.release

    def windows(self) -> list[tuple[DriftWindow, datetime]]:
        """Return the windows that the monitor closed, and when."""
        with inference_log_sql.open_log(URL, self.scenario.project) as log:
            rows = [row for row in log.windows() if "verdict" in row.body]
        result = [(msgspec.convert(row.body, DriftWindow, strict=False), row.created_at) for row in rows]
        return sorted(result, key=lambda pair: pair[0].until)

    def fill_window(self, requests: Iterator[UserRequest], *, edits: float = 0.0) -> tuple[DriftWindow, datetime]:
        """Send the requests of one window and wait until the monitor closed it; earlier requests are not in it."""
        since = datetime.now(UTC)
        self.users.send_requests(requests, self.scenario.rows, edits=edits)

        def find_window() -> tuple[DriftWindow, datetime] | None:
            # After a canary the monitor first has to close many windows of earlier requests.
            return next((pair for pair in reversed(self.windows()) if pair[0].until > since), None)

        return self.stack.monitor.until(find_window, self.scenario.settle_seconds, every=0.5)

    @contextmanager
    def measure_span(self, lane: str, label: str, category: Category = "normal") -> Iterator[None]:
        """Add a span to the timeline with the duration of the block."""
        since = self.clock(datetime.now(UTC))
        try:
            yield
        finally:
            self.spans.append(Span(lane, label, since, self.clock(datetime.now(UTC)), category))

    def run_command(self, *words: str) -> str:
        """Run a command of tunectl in the project and return its output.

        Raises  DemoAbortedError if it fails.
        """
        words = ("-m", "tunectl", *words)
        environment = {**plain_environment(), **OFFLINE_ENV}
        process = subprocess.run(
            [sys.executable, *words],
            cwd=self.scenario.project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode:
            raise DemoAbortedError(f"{' '.join(words[1:])} ended with {process.returncode}: {process.stderr.strip()}")
        return process.stdout

    def read_run(self, name: str) -> RetrainRun:
        """Read the record of a retrain."""
        return next(run for run in self.run_store.runs() if run.id == name)

    def wait_for_run(self, count: int) -> RetrainRun:
        """Wait for the retrain that starts after ``count`` others."""

        def find_run() -> RetrainRun | None:
            runs = self.run_store.runs()
            return runs[count] if len(runs) > count else None

        return self.stack.retrain.until(find_run, self.scenario.settle_seconds)

    def follow(self, run: RetrainRun, *ends: str, seconds: float) -> RetrainRun:
        """Print each step of a retrain until it has ended or is in one of the states ``ends``; return its record.

        Raises  NotReadyError if it takes longer.
        """
        stages, printed, end = (
            StageLogReader(Path(self.run_store.root) / "logs" / f"{run.id}.log"),
            0,
            time.monotonic() + seconds,
        )
        while True:
            run = self.read_run(run.id)
            for step in run.steps[printed:]:
                state = step.state.replace("_", " ")
                self.console_log.print_line(
                    f"{state}: {step.message}" if step.message else state, CATEGORIES.get(step.state, "active")
                )
            printed = len(run.steps)
            for name in stages.read_new(self.clock(datetime.now(UTC))):
                self.console_log.print_line(f"dvc repro: {name}")
            if run.ended or run.state in ends:
                built = (after.at for step, after in pairwise(run.steps) if step.state == "training")
                self.spans += stages.spans(self.clock(next(built, datetime.now(UTC))))
                return run
            if time.monotonic() > end or self.stack.retrain.process.poll() is not None:
                raise NotReadyError(
                    f"retrain {run.id} is {run.state} after {seconds:.0f} s:\n{self.stack.retrain.log_tail}"
                )
            time.sleep(0.2)

    def propose(self, challenger: BadChallenger) -> RetrainRun:
        """Propose a release; return the retrain that starts for it."""
        count = len(self.run_store.runs())
        self.run_command(
            "release",
            "propose",
            challenger.release,
            "-m",
            f"a bad challenger: {challenger.defect}",
            "--ignore-limits",
        )
        return self.wait_for_run(count)

    def run_canary(self, run: RetrainRun) -> RetrainRun:
        """Send requests until the canary test of ``run`` has ended."""
        for _ in range(self.scenario.max_rounds):
            self.users.send_requests(self.changed_requests, self.scenario.batch)
            run = self.read_run(run.id)
            result = next((item for item in self.canaries.all() if item.run == run.id), None)
            if result is not None and result.reading is not None:
                reading = result.reading
                means = ", ".join(
                    f"{name} {'-' if mean is None else f'{mean:.2f}'}"
                    for name, mean in (("champion", reading.champion), ("challenger", reading.challenger))
                )
                evidence = f"evidence: better {reading.evidence.get('better', 1):.1f}, harm {reading.evidence.get('harm', 1):.1f}"
                self.console_log.print_line(
                    f"{reading.champion_units} + {reading.challenger_units} users, satisfaction: {means}; {evidence}"
                )
            if run.ended:
                return run
        return wait_until(
            lambda: self._find_ended(run.id), self.scenario.settle_seconds, f"the end of the canary of {run.id}"
        )

    def _find_ended(self, name: str) -> RetrainRun | None:
        run = self.read_run(name)
        return run if run.ended else None


class StageLogReader:
    """Reads from the log of a build when each stage started."""

    def __init__(self, log: Path) -> None:
        self._log, self._offset = log, 0
        self._begun: list[tuple[str, float]] = []

    def read_new(self, now: float) -> list[str]:
        """Return the stages that started since the last call."""
        if not self._log.is_file():
            return []
        with self._log.open("rb") as stream:
            stream.seek(self._offset)
            data = stream.read()
        complete_lines = data.rfind(b"\n") + 1
        self._offset += complete_lines
        names = [name.decode() for name in STAGE.findall(data[:complete_lines])]
        self._begun += [(name, now) for name in names]
        return names

    def spans(self, now: float) -> list[Span]:
        """Return the span of each stage; none if no stage started."""
        if not self._begun:
            return []
        ends = [index for _, index in self._begun[1:]] + [now]
        return [Span("build", name, since, end, "active") for (name, since), end in zip(self._begun, ends, strict=True)]

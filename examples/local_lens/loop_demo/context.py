"""What a chapter works with: the scene, what runs, who asks, the records, and the clock."""

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

from loop_demo.console_log import Narrator
from loop_demo.processes import QUIET, NotReadyError, Stack, plain_environment, until
from loop_demo.scenario import Bad, Commission, Scene
from loop_demo.simulated_users import Crowd
from loop_demo.timeline import Clock, Span, Tone
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import DriftWindow
from tunectl.backends.storage import inference_log_sql
from tunectl.canary.canary_store import CanaryStore
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining.run_store import RunStore
from tunectl.retraining.state_machine import RetrainRun

URL = "sqlite:///.tunectl/inference_log/inference_log.sqlite"
STAGE = re.compile(rb"Running stage '(\w+)'")
LOOK = 0.1
"""Seconds between two looks at which releases serve."""
TONES: Mapping[str, Tone] = {
    "promoted": "good",
    "rejected": "bad",
    "withdrawn": "bad",
    "failed": "bad",
    "insufficient": "bad",
}


class BrokenPromiseError(Exception):
    """The story cannot go on: the message says why."""


class Lookout:
    """Notes when the service begins and ceases to answer with a release, by asking it ten times a second."""

    def __init__(self, served: Callable[[], dict[str, str]]) -> None:
        self._served, self._stop = served, threading.Event()
        self.history: list[tuple[datetime, dict[str, str]]] = []
        self._thread = threading.Thread(target=self._watch, name="lookout", daemon=True)

    def _watch(self) -> None:
        while not self._stop.wait(LOOK):
            result = self._served()
            if result and (not self.history or self.history[-1][1] != result):
                self.history.append((datetime.now(UTC), result))

    def __enter__(self) -> Lookout:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def since(self, moment: datetime, holds: Callable[[dict[str, str]], bool]) -> float | None:
        """Seconds from ``moment`` until it was seen that ``holds``; None where it never was."""
        before = [variants for index, variants in self.history if index <= moment]
        if before and holds(before[-1]):
            return 0.0
        later = (index for index, variants in self.history if index > moment and holds(variants))
        result = next(later, None)
        return None if result is None else (result - moment).total_seconds()


@dataclass
class Play:
    """See the module's text."""

    scene: Scene
    stack: Stack
    crowd: Crowd
    narrator: Narrator
    lookout: Lookout
    began: datetime
    spans: list[Span] = field(default_factory=list)
    """What people did, and the stages of a build."""
    drifted: tuple[DriftWindow, datetime] | None = None
    """The window that said drift."""
    changed_at: datetime | None = None
    """When the first changed question was asked."""

    def __post_init__(self) -> None:
        self.store = ReleaseRegistry(self.scene.project / ".tunectl" / "releases")
        self.run_store, self.canaries = RunStore(ProjectPaths(self.scene.project).retrain), CanaryStore(self.store)
        self.everyday, self.changed = self.scene.town.everyday(), self.scene.town.changed()
        self.clock = Clock(self.began)

    @property
    def champion(self) -> str:
        """The release that the pointer names."""
        pointer = self.store.champion()
        if pointer is None:
            raise BrokenPromiseError(f"{self.store.root} has no champion")
        return pointer.release

    def windows(self) -> list[tuple[DriftWindow, datetime]]:
        """The windows that the monitor closed, and when."""
        with inference_log_sql.open_log(URL, self.scene.project) as log:
            rows = [row for row in log.windows() if "verdict" in row.body]
        result = [(msgspec.convert(row.body, DriftWindow, strict=False), row.created_at) for row in rows]
        return sorted(result, key=lambda pair: pair[0].until)

    def window(self, commissions: Iterator[Commission], *, edits: float = 0.0) -> tuple[DriftWindow, datetime]:
        """Let so many people ask that a window closes; that window, and none of what was asked before."""
        since = datetime.now(UTC)
        self.crowd.ask(commissions, self.scene.rows, edits=edits)

        def fresh() -> tuple[DriftWindow, datetime] | None:
            # The monitor may be behind: after a canary it has many windows of earlier requests to close first.
            return next((pair for pair in reversed(self.windows()) if pair[0].until > since), None)

        return self.stack.monitor.until(fresh, self.scene.settle_seconds, every=0.5)

    @contextmanager
    def phase(self, lane: str, label: str, tone: Tone = "calm") -> Iterator[None]:
        """Note how long something lasted."""
        since = self.clock(datetime.now(UTC))
        try:
            yield
        finally:
            self.spans.append(Span(lane, label, since, self.clock(datetime.now(UTC)), tone))

    def command(self, *words: str) -> str:
        """A verb of tunectl in the project; what it printed.

        Raises  BrokenPromiseError where it fails.
        """
        words = ("-m", "tunectl", *words)
        environment = {**plain_environment(), **QUIET}
        process = subprocess.run(
            [sys.executable, *words],
            cwd=self.scene.project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode:
            raise BrokenPromiseError(f"{' '.join(words[1:])} ended with {process.returncode}: {process.stderr.strip()}")
        return process.stdout

    def run(self, name: str) -> RetrainRun:
        """A retrain as its record stands now."""
        return next(run for run in self.run_store.runs() if run.id == name)

    def next_run(self, count: int) -> RetrainRun:
        """The retrain that begins after ``count`` others."""

        def find_run() -> RetrainRun | None:
            runs = self.run_store.runs()
            return runs[count] if len(runs) > count else None

        return self.stack.retrain.until(find_run, self.scene.settle_seconds)

    def follow(self, run: RetrainRun, *ends: str, seconds: float) -> RetrainRun:
        """Tell each step of a retrain until it has ended, or has come to one of ``ends``; how it stands then.

        Raises  NotReadyError where it takes longer.
        """
        stages, printed, end = (
            Stages(Path(self.run_store.root) / "logs" / f"{run.id}.log"),
            0,
            time.monotonic() + seconds,
        )
        while True:
            run = self.run(run.id)
            for step in run.steps[printed:]:
                words = step.state.replace("_", " ")
                self.narrator.say(f"{words}: {step.message}" if step.message else words, TONES.get(step.state, "work"))
            printed = len(run.steps)
            for name in stages.fresh(self.clock(datetime.now(UTC))):
                self.narrator.say(f"dvc repro: {name}")
            if run.ended or run.state in ends:
                built = (after.at for step, after in pairwise(run.steps) if step.state == "training")
                self.spans += stages.spans(self.clock(next(built, datetime.now(UTC))))
                return run
            if time.monotonic() > end or self.stack.retrain.process.poll() is not None:
                raise NotReadyError(
                    f"retrain {run.id} is {run.state} after {seconds:.0f} s:\n{self.stack.retrain.last_words}"
                )
            time.sleep(0.2)

    def propose(self, bad: Bad) -> RetrainRun:
        """Somebody proposes a release; the retrain that comes of it, just begun."""
        count = len(self.run_store.runs())
        self.command(
            "release",
            "propose",
            bad.release,
            "-m",
            f"a challenger that was made to be bad: {bad.what}",
            "--ignore-limits",
        )
        return self.next_run(count)

    def try_out(self, run: RetrainRun) -> RetrainRun:
        """Let people ask until the experiment of ``run`` is decided."""
        for _ in range(self.scene.most_rounds):
            self.crowd.ask(self.changed, self.scene.batch)
            run = self.run(run.id)
            result = next((item for item in self.canaries.all() if item.run == run.id), None)
            if result is not None and result.reading is not None:
                reading = result.reading
                means = ", ".join(
                    f"{name} {'-' if mean is None else f'{mean:.2f}'}"
                    for name, mean in (("champion", reading.champion), ("challenger", reading.challenger))
                )
                proof = f"evidence: better {reading.evidence.get('better', 1):.1f}, harm {reading.evidence.get('harm', 1):.1f}"
                self.narrator.say(
                    f"{reading.champion_units} + {reading.challenger_units} people, satisfaction: {means}; {proof}"
                )
            if run.ended:
                return run
        return until(lambda: self._find_ended(run.id), self.scene.settle_seconds, f"the end of the canary of {run.id}")

    def _find_ended(self, name: str) -> RetrainRun | None:
        run = self.run(name)
        return run if run.ended else None


class Stages:
    """When a build came to which stage, read off the end of its log."""

    def __init__(self, log: Path) -> None:
        self._log, self._offset = log, 0
        self._begun: list[tuple[str, float]] = []

    def fresh(self, now: float) -> list[str]:
        """Stages that have begun since the last look."""
        if not self._log.is_file():
            return []
        with self._log.open("rb") as stream:
            stream.seek(self._offset)
            data = stream.read()
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        names = [name.decode() for name in STAGE.findall(data[:whole])]
        self._begun += [(name, now) for name in names]
        return names

    def spans(self, now: float) -> list[Span]:
        """From the begin of each to that of the next; none where nothing was built."""
        if not self._begun:
            return []
        ends = [index for _, index in self._begun[1:]] + [now]
        return [Span("build", name, since, end, "work") for (name, since), end in zip(self._begun, ends, strict=True)]

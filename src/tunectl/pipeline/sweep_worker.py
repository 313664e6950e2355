"""A worker of a sweep: it claims a trial, runs it, reports how it ended, and claims the next one."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.sweeps.optuna_study import SweepStudy
from tunectl.core.errors import TunectlError
from tunectl.pipeline import sweep_confirm
from tunectl.pipeline.sweep_trial import TrialRunner, WorktreeTrials
from tunectl.sweeps.sweep_report import describe_outcome
from tunectl.sweeps.trial_records import TrialClaim, TrialOutcome

IDLE_SECONDS = 2.0
"""Seconds between two requests for a trial while others run the last ones."""
MAX_FAILURES = 3
"""Failed trials in a row after which a worker stops: then the values are hardly the cause."""


def worker_name() -> str:
    """Return a unique name for a worker: host, process id and a random part."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


def run_worker(
    study: SweepStudy, trials: TrialRunner, stop: threading.Event, tell: Callable[[str], None], worker: str = ""
) -> int:
    """Run trials until there are no more; return the number of trials that ended here. ``tell`` gets progress lines.

    Raises  TunectlError where the trial of the current settings fails, or several in a row: then the cause is probably not their values.
    """
    worker = worker or worker_name()
    ended, failures = 0, 0
    while not stop.is_set():
        claim = study.claim(worker)
        if claim is None:
            if study.is_finished():
                break
            stop.wait(IDLE_SECONDS)
            continue
        outcome = _run_trial(study, trials, claim, stop, worker)
        if outcome is None:
            continue
        if not study.finish(claim, worker, outcome):
            tell(f"trial {claim.number}: another worker has taken it over; what came out here does not count")
            continue
        ended += 1
        tell(describe_outcome(claim, outcome, study.section))
        failures = failures + 1 if outcome.state == "failed" else 0
        if outcome.state == "failed" and (claim.start or failures >= MAX_FAILURES):
            what = (
                "the trial of the current settings"
                if claim.start
                else f"the last of {failures} trials that failed in a row"
            )
            raise TunectlError(
                f"{what} ended with: {outcome.reason}",
                hint="build the current settings alone: tunectl repro; once that works, run the same command again to "
                f"resume; trials keep their commit, so where it takes a new one, add sweep.name={study.name}_2",
            )
    return ended


def _run_trial(
    study: SweepStudy, trials: TrialRunner, claim: TrialClaim, stop: threading.Event, worker: str
) -> TrialOutcome | None:
    """Return the outcome of a trial, or None where it was released after a stop.

    Raises  TunectlError of the runner, once the trial is recorded as failed.
    """
    try:
        with study.beat(claim):
            outcome = trials.run(claim, study.stage_note(claim), stop)
    except TunectlError as error:
        study.finish(claim, worker, TrialOutcome(state="failed", reason=error.message))
        raise
    if outcome is None:
        study.release(claim, worker)
    return outcome


def run_workers(
    layout: ProjectPaths, study: SweepStudy, count: int, tell: Callable[[str], None], *, confirm: bool = False
) -> int:
    """Run one worker here and ``count - 1`` as processes; return the number of trials that ended in this one. ``tell`` gets progress lines.

    ``confirm``: the best trial is compared with the start on the test split when all have ended.

    SIGINT and SIGTERM release the running trial, so that the next worker continues it.
    """
    trials = WorktreeTrials(layout, study.section, study.definition)
    others = [_start_worker(trials.folder / "logs" / f"worker-{number}.log", study) for number in range(2, count + 1)]
    try:
        with _stop_on_signals() as stop:
            ended = run_worker(study, trials, stop, tell)
            if stop.is_set():
                raise KeyboardInterrupt
            for process in others:
                process.wait()
            trials.remove_ended(study.summarize().trials)
            if confirm and not stop.is_set():
                sweep_confirm.confirm_best(layout, study, stop, tell)
            if stop.is_set():
                raise KeyboardInterrupt
    finally:
        for process in others:
            process.terminate()
            process.wait()
    return ended


def _start_worker(log: Path, study: SweepStudy) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "tunectl", "sweep", "worker", study.name],
            env={**os.environ, study.section.storage_env: study.url},
            stdout=stream,
            stderr=subprocess.STDOUT,
        )


@contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """Yield an event that the first SIGINT or SIGTERM sets."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

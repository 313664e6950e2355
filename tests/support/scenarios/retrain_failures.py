"""Out of memory, out of disk, a failing stage, a retrain that is stopped (fault 24): the champion is untouched, and the state says why."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import retrain_project

from scenarios.fault_result import FaultResult
from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining.retrain_metrics import RetrainMetrics
from tunectl.retraining.run_store import RunStore
from tunectl.retraining.workspace import RetrainWorkspace

FAILURES = {"memory": "MemoryError", "killed": "", "disk": "File too large", "stage": "CUDA out of memory"}
"""What is wrong with the trainer, and what its log then holds."""


def new_result() -> FaultResult:
    return FaultResult(
        24,
        "memory, disk, failing stage, stopped run",
        "the champion's bytes identical; the state says why; the alert's series counts it",
    )


def run_failure(found: FaultResult, folder: Path, kind: str) -> None:
    """The trainer fails in one way; then all is well again, and the next trigger succeeds."""
    store, before, content = _project(folder)
    retrain_project.start(folder, "once", FAKE_TROUBLE=kind).wait(240)
    book = RunStore(ProjectPaths(folder).retrain)
    run = book.runs()[-1]
    found.require(
        run.state == "failed" and "repro ended with exit code" in run.steps[-1].message,
        f"{kind}: {run.state}, {run.steps[-1].message}",
    )
    found.require(
        FAILURES[kind] in RetrainWorkspace(ProjectPaths(folder)).log_path(run).read_text(),
        f"{kind}: the log does not say it",
    )
    found.require(_counted(book, store) == 1.0, f"{kind}: {_counted(book, store)} failed runs are counted")
    _untouched(found, store, before, content, kind)
    retrain_project.drift(folder, before, "n" * 16)
    retrain_project.start(folder, "once").wait(240)
    found.require(book.runs()[-1].state == "promoted", f"{kind}: afterwards {book.runs()[-1].state}")
    found.figures[kind] = "held" if not found.wrong else "missed"


def run_stopped_retrain(found: FaultResult, folder: Path) -> None:
    """SIGTERM in the middle of training is no failure: the run goes on with the next watcher."""
    store, before, content = _project(folder)
    watcher = retrain_project.start(folder, "on", FAKE_SECONDS="20")
    _until(
        lambda: (
            "training" in (retrain_project.states(folder) or [[]])[-1]
            and retrain_project.parties(watcher.pid)["trainer"]
        )
    )
    watcher.terminate()
    began = time.monotonic()
    code = watcher.wait(60)
    found.require_at_most("stop_s", time.monotonic() - began, 15)
    found.require(code == 0, f"a watcher that is told to stop ends with {code}")
    _untouched(found, store, before, content, "stopped")
    found.require(retrain_project.states(folder)[-1][-1] == "training", f"stopped: {retrain_project.states(folder)}")
    retrain_project.start(folder, "once").wait(240)
    found.require(
        retrain_project.states(folder)[-1][-1] == "promoted", f"stopped, and on: {retrain_project.states(folder)}"
    )
    found.require(len(retrain_project.states(folder)) == 1, "stopped: it began anew instead of going on")


def run_on_full_disk(found: FaultResult, folder: Path) -> None:
    """No file of the watcher may grow: no record can be written, and nothing is lost by it."""
    store = retrain_project.make(folder)
    retrain_project.start(folder, "once").wait(240)  # its secrets are there; nothing is asked of it yet
    before = store.champion().release
    content = atomic_io.sha256_path(store.folder(before))
    retrain_project.drift(folder, before)
    process = retrain_project.start(folder, "on", before=("prlimit", "--fsize=1:unlimited"))
    time.sleep(6)
    found.require(
        process.poll() is None,
        f"full disk: the watcher ended with {process.poll()}: {(folder / 'log.txt').read_text()[-300:]}",
    )
    _untouched(found, store, before, content, "full disk")
    subprocess.run(["prlimit", f"--pid={process.pid}", "--fsize=unlimited"], check=True)
    try:
        _until(lambda: (retrain_project.states(folder) or [[""]])[-1][-1] == "promoted", 240)
    finally:
        process.terminate()
        process.wait(60)
    found.require(
        retrain_project.states(folder)[-1][-1] == "promoted", f"with room again: {retrain_project.states(folder)}"
    )


def _project(folder: Path) -> tuple[ReleaseRegistry, str, str]:
    store = retrain_project.make(folder)
    before = store.champion().release
    retrain_project.drift(folder, before)
    return store, before, atomic_io.sha256_path(store.folder(before))


def _untouched(found: FaultResult, store: ReleaseRegistry, before: str, content: str, where: str) -> None:
    found.require(store.champion().release == before, f"{where}: the champion was swapped")
    found.require(atomic_io.sha256_path(store.folder(before)) == content, f"{where}: the champion's bytes have changed")


def _counted(book: RunStore, store: ReleaseRegistry) -> float:
    text = RetrainMetrics(0.0).text(book.runs(), book.list_outcomes(), store.champion(), None).decode()
    lines = (
        line
        for line in text.splitlines()
        if line.startswith("tunectl_retrain_runs_total") and 'outcome="failed"' in line
    )
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def _until(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)

"""The same work twice is done once, and a clean clone builds the same release (fault 28)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import retrain_project

from scenarios.fault_result import FaultResult
from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.inference_log.training_window import FeedbackWindow
from tunectl.retraining.run_store import RunStore
from tunectl.retraining.state_machine import Trigger

WINDOW = "inference_log/window.json"


def twice(folder: Path) -> FaultResult:
    """A retrain that was rejected; the same window tells of drift again; then a promoted one, rebuilt elsewhere."""
    found = FaultResult(28, "reproducing a run", "the same key gives the same data and a skip; a clean clone rebuilds")
    store = retrain_project.make(folder)
    champion = store.champion().release
    retrain_project.drift(folder, champion)
    retrain_project.start(folder, "once", VERDICT="reject").wait(240)
    book = RunStore(ProjectPaths(folder).retrain)
    first = book.runs()[0]
    _ask_again(folder)
    retrain_project.start(folder, "once").wait(240)
    found.require([run.id for run in book.runs()] == [first.id], f"{len(book.runs())} runs of one key")
    reasons = [seen.reason for seen in book.list_outcomes() if seen.run is None]
    found.require(reasons == ["duplicate"], f"the second trigger was settled as {reasons}")
    snapshots = sorted(
        path.name for path in (folder / ".tunectl" / "inference_log" / "snapshots").iterdir() if path.name != "tmp"
    )
    found.require(snapshots == [first.facts("proposed")["snapshot"]["id"]], f"snapshots: {snapshots}")
    retrain_project.drift(folder, champion, "n" * 16)
    retrain_project.start(folder, "once").wait(240)
    run = book.runs()[-1]
    found.require(run.state == "promoted", f"the next window: {run.state}, {run.steps[-1].message}")
    second = run.facts("proposed")["snapshot"]
    found.require(
        second["digest"] == first.facts("proposed")["snapshot"]["digest"], "the same traffic was frozen otherwise"
    )
    _cloned(found, folder, run.facts("evaluating")["release"])
    return found


def _ask_again(folder: Path) -> None:
    """The same drift, told by another trigger."""
    RunStore(ProjectPaths(folder).retrain).enqueue_trigger(
        Trigger("alert", "alert-again", datetime.now(UTC), "the same window")
    )


def _cloned(found: FaultResult, folder: Path, release: str) -> None:
    """What the branch has committed is enough, with the snapshots that it names."""
    clone = folder.with_name(f"{folder.name}-clone")
    subprocess.run(["git", "clone", "--quiet", str(folder), str(clone)], check=True)
    named = atomic_io.read_json(clone / WINDOW, FeedbackWindow)
    for one in named.snapshots:
        shutil.copytree(
            folder / ".tunectl" / "inference_log" / "snapshots" / one.id,
            clone / ".tunectl" / "inference_log" / "snapshots" / one.id,
        )
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=clone,
        env=retrain_project.ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    found.require(done.returncode == 0, f"dvc repro in the clone: {done.stderr[-500:]}")
    made = clone / "artifacts" / "package" / "release" / "weights"
    there = folder / ".tunectl" / "releases" / "releases" / release / "weights"
    found.require(made.is_file() and made.read_bytes() == there.read_bytes(), "the clone built another release")
    found.figures["rebuilt"] = release[:6]

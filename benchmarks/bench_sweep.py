"""Overhead of a trial of a sweep, beside what it cannot do without: a `repro` with nothing to do, and its worktree.

    make bench-sweep                            # --keep writes results/bench_sweep.json

A project with stages of milliseconds is built once. Then, in the same run: a `tunectl repro` with nothing to do; a worktree made,
given DVC's cache, and removed; and a trial of the settings as they are, whose stages are all up to date. Each is the median of
several runs. The trial may take 1.5 times the sum of the first two.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from hardware_info import machine, versions

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))
RESULT = ROOT / "benchmarks" / "results" / "bench_sweep.json"
ALLOWED = 1.5
"""Times the sum of a `repro` and a worktree."""


def median_seconds(call: Callable[[], object], runs: int) -> float:
    """Median seconds of a call, after one that is not counted."""
    call()
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return round(statistics.median(seconds), 3)


def measure(project: Path, runs: int) -> dict[str, float]:
    """Seconds of a repro, of a worktree, and of a trial, asking and telling included."""
    import sweep_fixtures
    import sweep_project

    from tunectl.artifacts.paths import ProjectPaths
    from tunectl.backends.vcs import build_worktree, git_worktree
    from tunectl.pipeline.sweep_trial import WorktreeTrials

    layout, commit = ProjectPaths(project), git_worktree.revision(project)

    def worktree() -> None:
        build_worktree.add(project, project / ".tunectl" / "bench", None, commit)
        git_worktree.remove(project, project / ".tunectl" / "bench")

    study = sweep_fixtures.create(project, n_trials=runs + 1, stage="sft", start={})
    for _ in range(runs):
        study._study.enqueue_trial({}, {"start": True})  # noqa: SLF001  every trial has the settings as they are
    trials = WorktreeTrials(layout, study.section, msgspec.structs.replace(study.definition, commit=commit))

    def trial() -> None:
        claim = study.claim("bench")
        assert claim is not None
        with study.beat(claim):
            outcome = trials.run(claim, study.stage_note(claim), threading.Event())
        assert outcome is not None
        assert outcome.state == "complete", outcome.reason
        study.finish(claim, "bench", outcome)

    return {
        "repro": median_seconds(lambda: sweep_project.tunectl(project, "repro", "--unattended", "--to", "sft"), runs),
        "worktree": median_seconds(worktree, runs),
        "trial": median_seconds(trial, runs),
    }


def main() -> None:
    """Print the figures, and the JSON line last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help=f"write {RESULT.relative_to(ROOT)}")
    args = parser.parse_args()
    import sweep_project

    os.environ.update(sweep_project.ENVIRONMENT)
    with tempfile.TemporaryDirectory() as name:
        figures = measure(sweep_project.make(Path(name) / "project"), args.runs)
    ratio = round(figures["trial"] / (figures["repro"] + figures["worktree"]), 2)
    for what, seconds in figures.items():
        print(f"{what:<10} {seconds:8.2f} s")
    print(f"a trial is {ratio} times a repro with nothing to do and its worktree; allowed: {ALLOWED}")
    result = {"figures": figures, "ratio": ratio, "machine": machine(), "versions": versions("optuna", "dvc")}
    if args.keep:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    if ratio > ALLOWED:
        sys.exit(1)


if __name__ == "__main__":
    main()

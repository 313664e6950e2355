"""Start and memory of our server beside those of an earlier checkout: both are started in turn, so many times each.

Seconds until the server is ready, and megabytes after 32 clients have had 64 answers, so that the cache and the working memory
of the engine are touched. Each start is a row of results/serve_rows.jsonl; pairs add up where a run was stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import serve_report
from serve_baselines import PEERS, MeasuredSystem, RunningSystem, SystemSetup
from serve_envs import ROOT, UnavailableError
from serve_fixtures import ServeFixtures
from serve_measurements import bodies, drive

CLIENTS, REQUESTS = 32, 64
READ_SETTINGS = (
    "import json, pathlib, sys, serve_fixtures as f; print(json.dumps(f.read_settings(pathlib.Path(sys.argv[1]))))"
)


def measure(fixtures: ServeFixtures, place: Path, old: Path, pairs: int, run: str) -> dict[str, Any]:
    """Start both so many times, earlier pairs counted, and return the rows and their ratios.

    Raises  SystemExit where one of them cannot be started.
    """
    ours = next(peer for peer in PEERS if peer.name == "tunectl")
    run = f"{run}-{digest_sources(ROOT)}-{digest_sources(old)}"
    table = place / "quick_rows.jsonl" if fixtures.quick else serve_report.ROWS
    if fixtures.quick:
        table.unlink(missing_ok=True)
    both = {"tunectl": (ours, fixtures), "before": (rename_earlier(ours, old), adapt_settings(fixtures, old))}
    first, finished = serve_report.count_rounds(serve_report.read_rows(table, run))
    for name in both if finished < pairs else ():
        start_once(*both[name], place, "warm-up")  # files come into memory, sources are compiled
    for turn in range(first, first + pairs - finished):
        for name in list(both)[:: 1 if turn % 2 else -1]:
            row = start_once(*both[name], place, f"starts/{turn}")
            about = serve_report.name_row(run, turn)
            serve_report.append_row(table, {**about, "system": name, "part": serve_report.STARTED, "load": 0, **row})
            print(
                f"{turn + 1} {name:8} ready after {row['seconds_to_ready']:.1f} s, {row['megabytes']:.0f} MB",
                flush=True,
            )
        serve_report.append_row(
            table, {**serve_report.name_row(run, turn), "system": "", "part": serve_report.END, "load": 0}
        )
    rows = serve_report.read_rows(table, run)
    ratios = {name: each for name, each in serve_report.compare_all(rows).items() if each.get("0")}
    for line in serve_report.judge(ratios):
        print(line, flush=True)
    return {
        "run": run,
        "old": old.name,
        "starts": [row for row in rows if row["part"] == serve_report.STARTED],
        "ratios": ratios,
    }


def start_once(peer: MeasuredSystem, fixtures: ServeFixtures, place: Path, name: str) -> dict[str, Any]:
    """Start one server, let it answer, stop it; seconds and megabytes.

    Raises  SystemExit with the last line of its log.
    """
    try:
        running = RunningSystem(peer, fixtures, place)
        try:
            seconds = running.wait()
            requests = CLIENTS if fixtures.quick else REQUESTS
            drive(running, bodies(running, requests, name), clients=CLIENTS, warm=0, seconds=600)
            return {"seconds_to_ready": round(seconds, 2), "megabytes": round(running.memory(), 1)}
        finally:
            running.stop()
    except UnavailableError as error:
        raise SystemExit(f"{peer.name} cannot be started: {error}") from error


def rename_earlier(ours: MeasuredSystem, old: Path) -> MeasuredSystem:
    """Return our server, run from the sources of an earlier checkout in the same environment."""

    def env(setup: SystemSetup) -> dict[str, str]:
        return {**ours.env(setup), "PYTHONPATH": str(old / "src")}

    return replace(ours, name="before", says=f"our server of {old.name}", env=env)


def adapt_settings(fixtures: ServeFixtures, old: Path) -> ServeFixtures:
    """Return the fixtures with the settings of an earlier checkout, as its own code reads them.

    Raises  SystemExit with its last words where it cannot.
    """
    paths = os.pathsep.join((str(old / "src"), str(ROOT / "benchmarks")))
    words = [sys.executable, "-c", READ_SETTINGS, str(old)]
    process = subprocess.run(
        words, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    if process.returncode:
        raise SystemExit(f"{old}: its settings cannot be read: {(process.stderr.splitlines() or ['no output'])[-1]}")
    return replace(fixtures, settings=json.loads(process.stdout))


def digest_sources(checkout: Path) -> str:
    """Return a name for the sources of a checkout."""
    files = sorted((checkout / "src/tunectl").rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:8]

"""kill -9 of each party of a retrain at random moments; two loops on one project, also as PID 1 of two containers (faults 23, 25)."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import retrain_project

from scenarios.fault_result import FaultResult
from tunectl.artifacts import atomic_io
from tunectl.backends.system import supervised_process
from tunectl.registry.release_store import ReleaseRegistry

PARTIES = ("watcher", "guard", "repro", "dvc", "trainer")
TRAINING = "1.5"
"""Seconds that the faked trainer takes, and so the least that every party is there."""
CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def new_result() -> FaultResult:
    return FaultResult(
        23,
        "kill -9 in a retrain",
        "no orphan after a restart, locks recovered, the champion whole, and the next trigger succeeds",
    )


def measure_lifetimes(folder: Path) -> dict[str, float]:
    """Of each party of a run that nobody disturbs: seconds that it is there; of the watcher until the promotion."""
    store = retrain_project.make(folder)
    retrain_project.drift(folder, store.champion().release)
    found: dict[str, tuple[float, float]] = {}
    watcher, begin = retrain_project.start(folder, "on", FAKE_SECONDS=TRAINING), time.monotonic()
    try:
        while (at := _state(folder)) != "promoted" and time.monotonic() < begin + 240:
            for party, pids in retrain_project.parties(watcher.pid).items():
                now = time.monotonic() - begin
                if pids:
                    found[party] = (found.get(party, (now, now))[0], now)
            time.sleep(0.2)
    finally:
        watcher.terminate()
        watcher.wait()
    assert at == "promoted", f"an undisturbed run stands at {at}"
    assert set(found) == set(PARTIES), f"an undisturbed run had only {sorted(found)}"
    return {party: last - first for party, (first, last) in found.items()}


def run_and_kill(found: FaultResult, folder: Path, party: str, age: float) -> str | None:
    """Kill one party ``age`` seconds after it came, wherever the retrain stands then; start again; see what became of it.

    Returns the state of the retrain that was hit; None where it had ended already.
    """
    store = retrain_project.make(folder)
    before = store.champion().release
    bytes_before = atomic_io.sha256_path(store.folder(before))
    retrain_project.drift(folder, before)
    watcher, begin = retrain_project.start(folder, "on", FAKE_SECONDS=TRAINING), time.monotonic()
    while not retrain_project.parties(watcher.pid)[party] and _state(folder) != "promoted":
        time.sleep(0.05)
    time.sleep(age)
    victims, at = retrain_project.parties(watcher.pid)[party], _state(folder)
    for pid in victims:
        subprocess.run(["kill", "-9", str(pid)], check=False)
    where = f"{party} after {time.monotonic() - begin:.1f} s, while {at}"
    if party != "watcher":
        time.sleep(1)
        watcher.send_signal(signal.SIGKILL)
    watcher.wait()
    pointer = store.champion()
    found.require(pointer is not None and store.verify(pointer.release) == [], f"{where}: the champion is damaged")
    found.require(
        atomic_io.sha256_path(store.folder(before)) == bytes_before, f"{where}: the bytes of the champion have changed"
    )
    _goes_on(found, folder, store, before, where)
    return at if victims and at != "promoted" else None


def _state(folder: Path) -> str:
    return (retrain_project.states(folder) or [["nothing"]])[-1][-1]


def _goes_on(found: FaultResult, folder: Path, store: ReleaseRegistry, before: str, where: str) -> None:
    """The next watcher brings it to its end; a run that failed of the kill may need another trigger."""
    for number in range(3):
        found.require(retrain_project.start(folder, "once").wait(240) == 0, f"{where}: the next watcher fails")
        if retrain_project.states(folder)[-1][-1] == "promoted":
            break
        retrain_project.drift(folder, before, f"{number}" * 16)
    found.require(retrain_project.states(folder)[-1][-1] == "promoted", f"{where}: {retrain_project.states(folder)}")
    found.require(store.champion().release != before, f"{where}: nothing was promoted at last")
    left = supervised_process.kill_marked(str((folder / ".tunectl" / "retrain").absolute()))
    found.require(left == [], f"{where}: {len(left)} processes were left")
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "status"],
        cwd=folder,
        env=retrain_project.ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    found.require(done.returncode == 0, f"{where}: DVC does not work any more: {done.stderr[-200:]}")


def two_loops(folder: Path, before: Sequence[str] = ()) -> FaultResult:
    """Two watchers begin at the same moment; ``before`` puts each into a container of its own."""
    found = FaultResult(25, f"two loops on one project{', each PID 1' if before else ''}", "exactly one runs")
    store = retrain_project.make(folder)
    retrain_project.drift(folder, store.champion().release)
    both = [retrain_project.start(folder, "on", before=before, FAKE_SECONDS="2") for _ in range(2)]
    try:
        end = time.monotonic() + 240
        while not any("promoted" in states for states in retrain_project.states(folder)) and time.monotonic() < end:
            time.sleep(0.1)
        codes = Counter(process.poll() for process in both)
        found.require(codes[None] == 1, f"exit codes {dict(codes)}; one is to go on, one to end")
        found.require(set(codes) == {None, 5}, f"the one that ends says so with 5, not {dict(codes)}")
        log = (folder / "log.txt").read_text()
        found.require("another retrain controller works here" in log, "it does not say why it ends")
    finally:
        for process in both:
            if process.poll() is None:
                process.terminate()
        for process in both:
            try:
                process.wait(10 if before else 60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    states = retrain_project.states(folder)
    found.require(len(states) == 1 and states[0][-1] == "promoted", f"{states}: {log[-500:]}")
    found.figures["runs"] = len(states)
    return found


def can_make_pid_namespaces() -> bool:
    """Whether this machine lets us make PID namespaces."""
    try:
        return subprocess.run([*CONTAINER, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False

"""The power fails at every step of a swap: the pointer is the old one or the new one, and what was begun comes to its end (fault 27)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import power_cut
import retrain_project

from scenarios.fault_result import FaultResult
from tunectl.backends.system import supervised_process
from tunectl.registry.release_manifest import BuildFacts
from tunectl.registry.release_state import swap_entries
from tunectl.registry.release_store import ReleaseRegistry

SWIFT = 5.0
"""Seconds that a rollback may take."""


def new_result() -> FaultResult:
    return FaultResult(27, "power cut in a promotion", "the pointer is old or new, never broken; rollback in under 5 s")


def pointer(found: FaultResult, folder: Path, *, every: int = 1) -> None:
    """Promote and roll back in a store of its own, cut before each ``every``-th change of a file."""
    store, names = ReleaseRegistry(folder / "store"), []
    for number in range(3):
        source = folder / f"source{number}"
        source.mkdir(parents=True)
        (source / "weights").write_text(str(number))
        names.append(store.add(source, BuildFacts("shop", "transformers", "adapter")).id)
    store.promote(names[0], author="test", message="the first")
    for what, start, goal in (("promote", names[0], names[1]), ("rollback", names[1], names[0])):
        for after in count(0, every):
            if store.champion().release != start:
                store.promote(start, author="test", message="back to the start")
            if _cut_swap(found, store, what, goal, start, after):
                break
        found.figures[f"steps_{what}"] = after
    began = time.monotonic()
    store.promote(names[2], author="test", message="to be taken back")
    store.rollback(author="test", message="drill")
    found.require_at_most("rollback_s", time.monotonic() - began, SWIFT)


def _cut_swap(found: FaultResult, store: ReleaseRegistry, what: str, goal: str, start: str, after: int) -> bool:
    """One cut; whether nothing was left to cut."""
    words = [sys.executable, power_cut.__file__, str(store.root), what, goal, str(after)]
    done = subprocess.run(words, env=retrain_project.ENVIRONMENT, capture_output=True, text=True)
    where = f"{what}, cut after {after}"
    found.require(done.returncode in (0, power_cut.CUT), f"{where}: ended with {done.returncode}: {done.stderr[-300:]}")
    now = store.champion()
    found.require(now is not None and now.release in (start, goal), f"{where}: the pointer names {now}")
    if now is None:
        return True
    found.require(store.verify(now.release) == [], f"{where}: {store.verify(now.release)}")
    found.require(now.release == goal or done.returncode != 0, f"{where}: it said that it was done, and it was not")
    swaps = swap_entries(store.log())
    found.require(swaps[-1].release == now.release, f"{where}: the log ends with {swaps[-1]}")
    return done.returncode == 0


def promotion(found: FaultResult, folder: Path, *, every: int = 1, most: int | None = None) -> None:
    """A whole retrain up to its promotion, then the same promotion cut after 0, 1, 2 ... changes of files, and gone on with."""
    store = retrain_project.make(folder)
    before = store.champion().release
    retrain_project.drift(folder, before)
    code = retrain_project.start(folder, "once", CUT="0").wait(240)
    found.require(code == power_cut.CUT, f"the first cut ended with {code}: {(folder / 'log.txt').read_text()[-500:]}")
    kept = folder.with_name(f"{folder.name}-kept")
    _copied(folder, kept)
    for turn in count():
        after = turn * every
        code = retrain_project.start(folder, "once", CUT=str(after)).wait(240)
        found.require(code in (0, power_cut.CUT), f"cut after {after}: ended with {code}")
        now = store.champion()
        found.require(store.verify(now.release) == [], f"cut after {after}: {store.verify(now.release)}")
        if code:
            found.require(
                retrain_project.start(folder, "once").wait(240) == 0, f"cut after {after}: the next watcher fails"
            )
        _ended_well(found, folder, store, before, f"cut after {after}")
        if code == 0 or (most is not None and turn + 1 >= most):
            break
        _copied(kept, folder)
    found.figures |= {"cuts_of_a_whole_promotion": turn + 1}
    shutil.rmtree(kept, ignore_errors=True)


def _copied(source: Path, target: Path) -> None:
    """The same bytes, links and times; worktrees know their absolute place, so a project is put back where it was."""
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


def _ended_well(found: FaultResult, folder: Path, store: ReleaseRegistry, before: str, where: str) -> None:
    states = retrain_project.states(folder)
    found.require(len(states) == 1 and states[-1][-1] == "promoted", f"{where}: {states}")
    found.require(store.champion().release != before, f"{where}: the old champion serves")
    found.require(not (store.root / "canary.json").exists(), f"{where}: a challenger is left")
    head = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no"], cwd=folder, capture_output=True, text=True
    ).stdout
    found.require(head == "", f"{where}: the checkout is dirty: {head[:200]}")
    events = retrain_project.events(folder, "reference_set")
    found.require(len(events) == 1, f"{where}: {len(events)} events make the window the reference")
    found.require(not (folder / ".tunectl" / "retrain" / "worktree").exists(), f"{where}: the worktree is left")
    found.require(
        supervised_process.kill_marked(str((folder / ".tunectl" / "retrain").absolute())) == [],
        f"{where}: processes are left",
    )

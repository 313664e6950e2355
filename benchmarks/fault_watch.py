"""kill -9 of each party of a retrain at random moments, one project each: what is left, who is champion, does the next one succeed?

    make fault-watch             fifty kills; writes benchmarks/results/fault_watch.md

Real watcher, Git, DVC, SQLite and processes; the trainer is faked to take seconds, and the gate says yes.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

import watch_project  # noqa: E402

from tunectl.backends import process_group  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "fault_watch.md"
PARTIES = ("watcher", "guard", "repro", "dvc", "trainer")


def one(folder: Path, party: str, after: float) -> dict[str, object]:
    """One kill, and what came of it."""
    store = watch_project.make(folder)
    before = store.champion()
    assert before is not None
    watch_project.drift(folder, before.release)
    watcher = watch_project.start(folder, "on", FAKE_SECONDS="1.5")
    time.sleep(after)
    victims = watch_project.parties(watcher.pid)[party]
    at = (watch_project.states(folder) or [["nothing"]])[-1][-1]
    for pid in victims:
        subprocess.run(["kill", "-9", str(pid)], check=False)
    if party != "watcher":
        time.sleep(1)
        watcher.send_signal(signal.SIGKILL)
    watcher.wait()
    pointer = store.champion()
    whole = pointer is not None and store.verify(pointer.release) == []
    for number in range(3):
        watch_project.start(folder, "once").wait()
        if watch_project.states(folder)[-1][-1] == "promoted":
            break
        watch_project.drift(folder, before.release, f"{number}" * 16)
    orphans = process_group.sweep(str((folder / ".tunectl" / "retrain").absolute()))
    after_all = store.champion()
    return {
        "party": party,
        "killed": len(victims),
        "while": at,
        "champion whole": whole,
        "orphans": len(orphans),
        "promoted at last": after_all is not None and after_all.release != before.release,
        "runs": [states[-1] for states in watch_project.states(folder)],
    }


def main() -> None:
    """Kill, count, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument(
        "--most", type=float, default=14.0, help="seconds after its start at which a party is killed at the latest"
    )
    given = parser.parse_args()
    dice, rows = random.Random(5), []
    for number in range(given.kills):
        folder = Path(tempfile.mkdtemp()) / "shop"
        rows.append(one(folder, PARTIES[number % len(PARTIES)], dice.uniform(0.5, given.most)))
        print(rows[-1], flush=True)
        shutil.rmtree(folder.parent, ignore_errors=True)
    lines = [
        "| party | kills | hit somebody | champion whole | orphans | next run promoted |",
        "|---|---|---|---|---|---|",
    ]
    for party in PARTIES:
        own = [row for row in rows if row["party"] == party]
        counts = [sum(bool(row[name]) for row in own) for name in ("killed", "champion whole", "promoted at last")]
        orphans = sum(int(str(row["orphans"])) for row in own)
        lines.append(f"| {party} | {len(own)} | {counts[0]} | {counts[1]} | {orphans} | {counts[2]} |")
    RESULTS.write_text("\n".join(["kill -9 at random moments of a retrain.", "", *lines]) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

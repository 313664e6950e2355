"""Kill a writer in the middle of its work, again and again, and count what it had confirmed and the store does not hold."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import killable_writer

from tunectl.backends.storage import inference_log_sql


@dataclass(frozen=True)
class Killed:
    """One run."""

    accepted: int
    finished: int
    feedback: int
    missing: tuple[str, ...]
    """Confirmed, and not there."""
    running: int
    """Inferences that the kill left without an end."""


def killed(url: str, folder: Path, runs: int, seed: int) -> Iterator[Killed]:
    """Run, kill at a random moment up to half a second after the first confirmation, and look."""
    chance = random.Random(seed)
    for number in range(runs):
        prefix = f"run{seed}x{number}"
        command = [sys.executable, killable_writer.__file__, url, str(folder), prefix]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        first = process.stdout.readline()
        time.sleep(chance.random() / 2)
        process.kill()
        said = (first + process.stdout.read()).decode().split("\n")[:-1]  # a last line without an end was not said
        process.stdout.close()
        process.wait()
        yield _look(url, folder, prefix, said)


def _look(url: str, folder: Path, prefix: str, said: list[str]) -> Killed:
    with inference_log_sql.open_log(url, folder, serving=True) as store:
        rows = list(store.inferences(release=prefix))
        known = {"accepted": {one.id for one in rows}}
        known["finished"] = {one.id for one in rows if one.finished_at is not None and one.response is not None}
        known["feedback"] = set(store.feedback_of([one.id for one in rows]))
    assert len(known["accepted"]) == len(rows)
    told = [line.split(" ") for line in said]
    count = {kind: sum(word == kind for word, _ in told) for kind in known}
    missing = tuple(f"{kind} {name}" for kind, name in told if name not in known[kind])
    return Killed(**count, missing=missing, running=len(rows) - len(known["finished"]))

"""Ranks of torchrun that are killed at moments that nobody chose: the same bytes (`make faults`: 20 kills)."""

import contextlib
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
from launched_fits import build_launch
from tiny_fits import digest, plan, sft_job

from tunectl.backends.launchers.torchrun_launcher import TorchrunLauncher

pytest.importorskip("torch")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ranks_are_killed_at_random_moments(tiny_model, tmp_path):
    """While they start, between steps, in a save: TUNECTL_KILLS of them (`make faults`: 20)."""
    kills = int(os.environ.get("TUNECTL_KILLS", "2"))
    chosen = plan(epochs=60, save_steps=20, dropout=0.1)
    plain, killed = (sft_job(tiny_model, tmp_path / name, chosen) for name in ("plain", "killed"))
    steps = TorchrunLauncher(build_launch()).run(plain).result.steps
    count: list[int] = []
    # The last kill comes when half of the steps are done, or before: the fit cannot end first, however fast the machine is.
    due = [steps * number // (2 * kills) for number in range(1, kills + 1)]
    killer = threading.Thread(target=_kill_at_random, args=(killed.work, due, count), daemon=True)
    killer.start()
    end = TorchrunLauncher(build_launch(max_restarts=kills)).run(killed)
    assert digest(killed.out) == digest(plain.out)
    assert end.restarts == len(count) == kills


def _kill_at_random(work: Path, due: list[int], count: list[int]) -> None:
    """Kill one of two ranks up to eight seconds after both are there, or at a checkpoint of the step that is ``due``; once for each."""
    chance = random.Random(7)
    before: set[int] = set()
    while len(count) < len(due):
        ranks = {pid for pid in _find_ranks(work) if pid not in before}
        if len(ranks) == 2:
            until = time.monotonic() + chance.uniform(0, 8)
            while time.monotonic() < until and _last_checkpoint(work) < due[len(count)]:
                time.sleep(0.02)
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(sorted(ranks)), signal.SIGKILL)
                count.append(1)
            before |= ranks
        time.sleep(0.05)


def _last_checkpoint(work: Path) -> int:
    return max(
        (int(path.parent.name.rpartition("-")[2]) for path in work.glob("checkpoint-*/complete.json")), default=0
    )


def _find_ranks(work: Path) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = place.read_bytes()
            if b"launchers.worker" in words and str(work).encode() in words:
                found.append(int(place.parent.name))
    return found

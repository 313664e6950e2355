"""What several processes cost: two against one on a tiny model, and the time from a kill to the next step.

    python benchmarks/bench_scale.py [--runs 5] [--epochs 40] [--model artifacts/model] [--keep]

One process has two threads, two processes have one each; the steps, rows and seed are the same. Seconds are those of the steps, as the
fit reports them: start and imports are shown apart. The kill ends one of two processes at a checkpoint; the clock stops at the next
checkpoint, which is the next step. The same two against one for a step of ``align`` (RLOO, answers sampled). On a tiny model the
sums between processes weigh most: it is the worst case. The effect of the number of processes on the results is reported, too: the largest
gap of losses and weights with dropout and with bfloat16, and the first step at which sampled answers differ. Where there are CUDA cards, ``scale_cards.py`` measures tokens a second
of --model by their number, beside TRL with accelerate. The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import scale_cards
from hardware_info import machine, versions

from tunectl.core.errors import InfrastructureError

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "bench_scale.json"
VARIANTS: dict[str, dict[str, Any]] = {"dropout=0.1": {"dropout": 0.1}, "bfloat16": {"dtype": "bfloat16"}}
"""Fits in which one process and two need not come to the same numbers."""
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "tests")]


def main() -> None:
    """Measure, and print figures as they come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each kind, and kills (5)")
    parser.add_argument("--epochs", type=float, default=40, help="passes over 24 rows, of two rows a step (40)")
    parser.add_argument(
        "--model", type=Path, default=ROOT / "artifacts" / "model", help="what cards train (artifacts/model)"
    )
    parser.add_argument("--keep", action="store_true", help=f"write {RESULT.relative_to(ROOT)}")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(Path(scratch), args.runs, args.epochs) | {"cards": measure_cards(args.model)}
    if args.keep:
        RESULT.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures))


def measure(scratch: Path, runs: int, epochs: float) -> dict[str, object]:
    """All figures."""
    import conftest

    model = scratch / "model"
    conftest.build_tiny_model(model)
    imports = [time_imports() for _ in range(runs)]
    print(f"imports of one process: {statistics.median(imports):.1f} s")
    steps: dict[str, list[float]] = {"one": [], "two": []}
    starts: list[float] = []
    for run in range(runs):
        for name, times in steps.items():  # in turn, so that a slow minute meets both
            begun = time.monotonic()
            result = fit(model, scratch / f"{name}-{run}", epochs, processes=2 if name == "two" else 1)
            times.append(1000 * result.seconds / result.steps)
            if name == "two":
                starts.append(time.monotonic() - begun - result.seconds)
    one, two = (statistics.median(steps[name]) for name in ("one", "two"))
    print(
        f"one process, two threads: {one:.1f} ms a step; two processes, one thread each: {two:.1f} ms ({two / one:.2f} times)"
    )
    print(f"start of two processes: {statistics.median(starts):.1f} s")
    gaps_of_numbers = measure_gaps(model, scratch / "gaps")
    for name, gap in gaps_of_numbers.items():
        print(f"{name}: one and two processes differ by {gap['loss']:.2g} in a loss, {gap['weight']:.2g} in a weight")
    policy, differs = time_policy(model, scratch / "policy", runs)
    single, double = (statistics.median(policy[name]) for name in ("one", "two"))
    print(f"align: one process {single:.1f} ms a step; two processes {double:.1f} ms ({double / single:.2f} times)")
    print(f"align: sampled answers of one and two processes differ first at step {differs or 'none'}")
    gaps = time_kills(model, scratch / "killed", runs)
    print(f"kill to next step: {statistics.median(gaps):.1f} s (median of {len(gaps)})")
    return {
        "machine": machine(),
        "versions": versions("torch", "transformers", "trl", "peft"),
        "imports_seconds": imports,
        "milliseconds_a_step": steps,
        "start_seconds": starts,
        "gaps": gaps_of_numbers,
        "align_milliseconds_a_step": policy,
        "align_answers_differ_at_step": differs,
        "kill_to_next_step_seconds": gaps,
    }


def measure_cards(model: Path) -> object:
    """Tokens a second by number of cards, or why they were not measured."""
    try:
        return scale_cards.measure(model, None, steps=40)
    except scale_cards.NoCardError as error:
        print(f"cards: {error}")
        return str(error)


def time_imports() -> float:
    """Seconds in which a fresh process imports what a rank needs."""
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", "import torch, transformers, peft, trl.trainer.sft_trainer"], check=True)
    return time.monotonic() - begun


def fit(
    model: Path,
    folder: Path,
    epochs: float,
    *,
    processes: int,
    save_steps: int = 10_000,
    restarts: int = 0,
    dropout: float = 0.0,
    dtype: str = "float32",
):
    """One fit; returns its ``TrainResult``."""
    import tiny_fits

    from tunectl.backends.launchers.torchrun_launcher import TorchrunLauncher
    from tunectl.backends.trainers.sft_trainer import SftTrainer

    profile = tiny_fits.PROFILE.model_copy(update={"threads": 3 - processes, "dtype": dtype})
    plan = replace(tiny_fits.plan(dropout=dropout), epochs=epochs, save_steps=save_steps, profile=profile)
    job = tiny_fits.sft_job(model, folder, plan)
    if processes == 1:
        inputs = {"model": model, "train": job.train, "validation": job.validation, "out": job.out, "work": job.work}
        return SftTrainer().fit(plan, **inputs)
    return TorchrunLauncher(two_processes(restarts)).run(job).result


def two_processes(restarts: int):
    """The launch of two processes."""
    from tunectl.config.schema.launch import TorchrunLaunch

    return TorchrunLaunch(
        method="torchrun",
        nproc_per_node=2,
        nnodes=1,
        rdzv_endpoint=None,
        storage_path=None,
        max_restarts=restarts,
        shard="none",
        collective_timeout_seconds=120,
    )


def measure_gaps(model: Path, folder: Path) -> dict[str, dict[str, float]]:
    """By variant, the largest difference of a loss and of a weight between one process and two."""
    from safetensors.numpy import load_file

    gaps = {}
    for name, changes in VARIANTS.items():
        losses, weights = [], []
        for processes in (1, 2):
            place = folder / f"{name}-{processes}"
            losses.append([point.loss for point in fit(model, place, 2, processes=processes, **changes).history])
            tensors = load_file(place / "out" / "adapter_model.safetensors")
            weights.append([number for key in sorted(tensors) for number in tensors[key].ravel().tolist()])
        gaps[name] = {"loss": find_largest_gap(*losses), "weight": find_largest_gap(*weights)}
    return gaps


def find_largest_gap(one: Sequence[float], two: Sequence[float]) -> float:
    """The largest absolute difference of two rows of numbers."""
    return max(abs(here - there) for here, there in zip(one, two, strict=True))


def find_first_difference(one: Sequence[Any], two: Sequence[Any]) -> int | None:
    """The step, from 1 on, at which two runs of the same steps first wrote other answers; None where they never did."""
    pairs = zip(one, two, strict=True)
    return next((here.step for here, there in pairs if here.completions_crc32 != there.completions_crc32), None)


def time_policy(model: Path, folder: Path, runs: int) -> tuple[dict[str, list[float]], int | None]:
    """Milliseconds of a step of a policy: median of its steps, one process and two, run after run; where the answers part."""
    import tiny_policies

    from tunectl.backends.launchers.torchrun_launcher import TorchrunLauncher
    from tunectl.backends.wiring import align

    folder.mkdir()
    start = tiny_policies.build_policy(model, folder)
    times: dict[str, list[float]] = {"one": [], "two": []}
    last = {}
    for run in range(runs):
        for name, steps in times.items():
            machine_profile = tiny_policies.profile(threads=2 if name == "one" else 1)
            changes = {"steps": 40, "prompts_per_step": 4, "num_generations": 8, "save_steps": 1000}
            plan = tiny_policies.plan(rewards=tiny_policies.TERMS, machine=machine_profile, **changes)
            job = tiny_policies.policy_job(start, folder / f"{name}-{run}", plan)
            if name == "one":
                inputs = {"model": job.model, "sft": job.sft, "data": job.train[0], "out": job.out, "work": job.work}
                tools = align.build_backend()
                judges = align.build_judges(plan.settings, tools, None)
                result = align.build_trainer(plan.settings).fit(plan, judges=judges, **inputs)
            else:
                result = TorchrunLauncher(two_processes(restarts=0)).run(job).result
            steps.append(1000 * statistics.median(point.seconds for point in result.history))
            last[name] = result.history
    return times, find_first_difference(last["one"], last["two"])


def time_kills(model: Path, folder: Path, kills: int) -> list[float]:
    """Seconds from a kill to the checkpoint after it, of each kill in one fit."""
    gaps: list[float] = []
    killer = threading.Thread(target=kill_at_checkpoints, args=(folder / "work", kills, gaps), daemon=True)
    killer.start()
    with contextlib.suppress(InfrastructureError):  # it is stopped when it was killed often enough
        fit(model, folder, 900, processes=2, save_steps=1, restarts=kills + 1)
    killer.join()
    return gaps


def kill_at_checkpoints(work: Path, kills: int, gaps: list[float]) -> None:
    """Kill one rank at a checkpoint and wait for the next, ``kills`` times; then ask the fit to stop."""
    checkpoint = wait_for_checkpoint(work, 0)
    for _ in range(kills):
        os.kill(find_ranks(work)[-1], signal.SIGKILL)
        begun = time.monotonic()
        checkpoint = wait_for_checkpoint(work, checkpoint)
        gaps.append(time.monotonic() - begun)
    os.kill(os.getpid(), signal.SIGINT)


def wait_for_checkpoint(work: Path, after: int) -> int:
    """The step of the first complete checkpoint after step ``after``."""
    while True:
        steps = [int(path.parent.name.rpartition("-")[2]) for path in work.glob("checkpoint-*/complete.json")]
        if max(steps, default=0) > after:
            return max(steps)
        time.sleep(0.01)


def find_ranks(work: Path) -> Sequence[int]:
    """Ids of the processes of the fit in ``work``."""
    result = []
    for index in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = index.read_bytes()
        except OSError:
            continue
        if b"launchers.worker" in words and str(work).encode() in words:
            result.append(int(index.parent.name))
    return sorted(result)


if __name__ == "__main__":
    main()

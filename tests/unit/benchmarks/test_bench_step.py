"""What bench_step makes of its layers: parts that add up to the whole, a table, and a plot."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
WALLS = {
    "prompts_wall": 0.2, "prompts_inference": 0.15, "prompts_sampling": 0.01,
    "plain_wall": 1.2, "plain_inference": 0.95, "plain_sampling": 0.11,
    "logprobs_wall": 1.3, "logprobs_inference": 0.95, "logprobs_sampling": 0.2,
    "thread": 1.35, "process": 1.33, "http": 1.5, "http_cpu": 2.0, "http_front_cpu": 0.05,
}  # fmt: skip


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("openvino_genai")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("bench_step")


def test_parts_add_up_to_the_whole(step: ModuleType) -> None:
    parts = step.split(WALLS, 10)
    assert sum(parts.values()) == pytest.approx(150.0)
    expected = {
        "reading prompts": 20.0,
        "inference": 80.0,
        "sampling": 10.0,
        "log-probabilities": 10.0,
        "our thread": 5.0,
    }
    assert {name: round(parts[name], 6) for name in expected} == expected
    assert round(parts["process hop"], 6) == -2.0  # noise is told as it is
    assert round(parts["not attributed"], 6) == 10.0
    assert (round(parts["JSON, sockets and log"], 6), round(parts["waiting"], 6)) == (5.0, 12.0)


def test_the_median_and_the_quartiles_are_reported_and_drawn(step: ModuleType) -> None:
    rounds = [{**WALLS, "http": 1.5 + 0.1 * turn} for turn in range(5)]
    steps = {"8": step.combine(rounds, 10)}
    assert steps["8"]["whole"] == {"median": 170.0, "low": 155.0, "high": 185.0}
    lines = step.write_table(steps)
    assert lines[-2] == "| whole | 170.0 (155.0 to 185.0) |"
    assert step.draw(steps).startswith("<svg")


def test_processor_time_is_told_with_and_without_the_process_of_the_engine(step: ModuleType) -> None:
    baselines = importlib.import_module("serve_baselines")
    burn = "sum(range(30_000_000))"
    words = [
        sys.executable,
        "-c",
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{burn}', 'subprocess_engine']); input()",
    ]
    with subprocess.Popen(words, stdin=subprocess.PIPE, process_group=0) as process:
        running = object.__new__(baselines.RunningSystem)
        running.process = process
        try:
            wait_until(lambda: running.cpu() - running.cpu(without=step.ENGINE_PROCESS) > 0.1)
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_products_of_the_shapes_are_timed(step: ModuleType) -> None:
    shapes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 64}
    found = step.time_products({**shapes, "num_key_value_heads": 1, "num_attention_heads": 2}, 4)
    assert found["milliseconds"] >= 0
    assert found["gflop_per_second"] > 0

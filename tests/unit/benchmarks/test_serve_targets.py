"""What bench_serve says of its targets."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def test_targets_that_were_measured_are_held_or_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    judged = importlib.import_module("bench_serve").judged
    ratios = {"http_over_bare": {"32": 0.85}, "over_best_of_vllm_and_transformers": {"1": 1.59, "8": None, "32": 2.0}}
    assert list(judged({"ratios": ratios, "shared_beginnings": {}})) == [
        "held   ours over HTTP beside the bare engine, 32 clients: 0.85 (at least 0.85)",
        "MISSED ours beside the best of vLLM and transformers, 1 clients: 1.59 (at least 1.6)",
        "held   ours beside the best of vLLM and transformers, 32 clients: 2.0 (at least 1.6)",
    ]
    assert list(judged({"memory": {"growth_after_the_first_tenth": 0.04}})) == [
        "MISSED growth of memory after the first tenth: 0.04 (at most 0.03)"
    ]

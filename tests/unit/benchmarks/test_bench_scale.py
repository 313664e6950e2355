"""What the benchmarks of scale make of their figures: gaps, the first other answer, limits, rates, and a file."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def test_the_largest_gap_and_the_first_other_answer(load: Any) -> None:
    scale = load("bench_scale")
    assert scale.find_largest_gap([1.0, 2.0, 3.0], [1.0, 2.5, 2.75]) == 0.5
    one, two = (
        [SimpleNamespace(step=n + 1, completions_crc32=crc) for n, crc in enumerate(row)] for row in ("aba", "aca")
    )
    assert scale.find_first_difference(one, two) == 2
    assert scale.find_first_difference(one, one) is None


@pytest.mark.parametrize(("times", "within"), [(None, True), (2.9, True), (3.0, False)])
def test_ray_has_a_limit_of_its_own(load: Any, times: float | None, within: bool) -> None:
    figures: dict[str, Any] = {"ours": {"peak_gb": 1.0, "seconds": 20.0}}
    if times is not None:
        figures["ray"] = {"times_local": times}
    assert load("bench_curate").is_within_limits(1_000_000, figures) is within
    figures["ours"]["peak_gb"] = 9.0
    assert not load("bench_curate").is_within_limits(1_000_000, figures)


def test_rates_count_the_cores_that_the_run_had(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    figures = {"ours": {"read_seconds": 0.0, "seconds": 10.0}, "ray": {"seconds": 20.0}}
    rates = load("bench_curate").find_rates(1000, figures, 500, 15.0)
    assert rates == {"local_seconds": 0.01, "ray_start_seconds": 10.0, "ray_cpu_seconds": 0.03}


@pytest.mark.parametrize("name", ["bench_scale", "bench_sweep"])
def test_figures_are_kept_where_that_is_asked(
    load: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = load(name)
    monkeypatch.setattr(bench, "measure", lambda *_: {"repro": 1.0, "worktree": 1.0, "trial": 2.0})
    monkeypatch.setattr(bench, "measure_cards", lambda _: "no card", raising=False)
    project = importlib.import_module("sweep_project")
    monkeypatch.setattr(project, "make", lambda folder: folder)
    monkeypatch.setattr(project, "ENVIRONMENT", {})
    monkeypatch.setattr(bench, "RESULT", BENCHMARKS / "results" / "never.json")
    for words, there in (([], False), (["--keep"], True)):
        monkeypatch.setattr(sys, "argv", [name, *words])
        monkeypatch.setattr(Path, "write_text", lambda _, text: (tmp_path / "kept").write_bytes(text.encode()))
        bench.main()
        assert (tmp_path / "kept").is_file() is there
    assert json.loads((tmp_path / "kept").read_bytes()) == json.loads(capsys.readouterr().out.splitlines()[-1])

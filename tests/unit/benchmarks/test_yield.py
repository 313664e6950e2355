"""What bench_yield makes of its windows, and that its training is the retrain controller's."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

from tunectl.config.schema.retrain import RetrainResourcesConfig

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("bench_yield")


def window(first: float | None, processors: float = 0.0) -> dict:
    quantiles = {"p50": first, "p95": None if first is None else 2 * first}
    return {
        "first": quantiles, "between": quantiles, "tokens_per_second": 100.0, "requests": 7, "training_processors": processors,
    }  # fmt: skip


def test_each_round_is_held_against_its_own_windows_alone(bench: ModuleType) -> None:
    cells = {
        bench.ALONE: [window(90.0), window(110.0), window(200.0), window(200.0)],
        bench.YIELDING: [window(120.0, 0.3), window(280.0, 0.5)],
        bench.GREEDY: [window(500.0, 1.0), window(None, 1.0)],
    }
    over = bench.ratios(cells)
    assert over == {bench.YIELDING: {"p50": 1.3, "p95": 1.3}, bench.GREEDY: {"p50": 5.0, "p95": 5.0}}
    ways = {name: bench.summary(some) for name, some in cells.items()}
    assert ways[bench.YIELDING]["training_processors"] == 0.4
    lines = list(bench.format_table({"ways": ways, "over_alone": over}))
    assert len(lines) == 4
    assert "1.3 / 1.3" in lines[2]
    assert lines[2].endswith(" 0.4")
    json.dumps(ways)


def test_a_round_has_the_declared_resources_and_none(bench: ModuleType) -> None:
    found = bench.list_conditions(RetrainResourcesConfig(nice=12, threads=3, device="any"))
    assert [name for name, _ in found] == [bench.ALONE, bench.YIELDING, bench.GREEDY, bench.ALONE]
    assert [None if one is None else (one.nice, one.threads) for _, one in found] == [None, (12, 3), (0, 0), None]

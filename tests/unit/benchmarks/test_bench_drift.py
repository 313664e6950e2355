"""What bench_drift makes of its trials."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tunectl.monitoring.power_study import Rate

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("bench_drift")


def figures(bench, text: Rate, tone: Rate, null: Rate) -> dict[str, dict[str, Rate]]:
    return {
        f"{change}, {rows}": {
            "prompt_text": null if change == "nothing" else text,
            "prompt_tone": null if change == "nothing" else tone,
        }
        for rows in bench.SIZES
        for change in bench.CHANGES
    }


def verdicts(bench, window: Rate, verdict: Rate) -> dict[str, dict[str, Rate]]:
    return {
        f"{change}, {rows}": {"window": window, "verdict": verdict} for rows in bench.SIZES for change in bench.CHANGES
    }


def test_the_better_of_two_signals_counts_and_false_alarms_may_be_chance(bench) -> None:
    good = figures(bench, Rate(200, 200), Rate(0, 200), Rate(28, 400))
    assert good["nothing, 100"]["prompt_text"].share == 0.07
    assert bench.missed({bench.TUNECTL: good}, 0.05) == []
    bad = figures(bench, Rate(178, 200), Rate(150, 200), Rate(32, 400))
    assert bench.missed({bench.TUNECTL: bad}, 0.05) == [
        f"{name}: 8.0% (5.7% to 11.1%) false alarms at {rows} rows, at most 5% wanted"
        for rows in (100, 300)
        for name in ("prompt_text", "prompt_tone")
    ] + [
        f"prompt_text: 89.0% (83.9% to 92.6%) power for {change} at {rows} rows, {wanted:.0%} wanted"
        for (change, rows), wanted in bench.TARGETS.items()
        if wanted > 0.89
    ]


def test_the_verdict_may_be_false_once_in_a_thousand(bench) -> None:
    good = figures(bench, Rate(200, 200), Rate(0, 200), Rate(20, 400))
    held = verdicts(bench, Rate(250, 5000), Rate(5, 5000))
    assert bench.missed({bench.TUNECTL: good, bench.VERDICT: held}, 0.05) == []
    broken = verdicts(bench, Rate(350, 5000), Rate(6, 5000))
    told = bench.missed({bench.TUNECTL: good, bench.VERDICT: broken}, 0.05)
    assert [one.split(":")[0] for one in told] == ["window", "verdict"] * 2


def test_parts_add_up_and_the_page_has_every_rule(bench) -> None:
    crew, shown = importlib.import_module("drift_workers"), importlib.import_module("drift_report")
    parts = [{"a": Rate(1, 20), "b": Rate(0, 20)}, {"a": Rate(2, 10)}]
    assert crew.added(parts) == {"a": Rate(3, 30), "b": Rate(0, 20)}
    blocks = {
        bench.TUNECTL: figures(bench, Rate(199, 200), Rate(1, 200), Rate(20, 400)),
        bench.VERDICT: verdicts(bench, Rate(200, 5000), Rate(1, 5000)),
    }
    lines = shown.table(blocks).splitlines()
    assert len(lines) == 2 + 4
    assert {line.count("|") for line in lines} == {2 + len(bench.SIZES) * len(bench.CHANGES)}
    assert lines[2].startswith("| tunectl prompt_text | 5.0 % | 99.5 % |")
    assert "0.02 %" in lines[-1], "a rare thing is not 0.0 %"
    assert shown.trials(blocks) == "tunectl 400 and 200; tunectl, all signals 5,000 and 5,000"


def test_a_divergence_of_equal_counts_is_nothing(bench) -> None:
    peers = importlib.import_module("drift_baselines")
    assert peers.divergence([3, 4, 5], [3, 4, 5]) == 0
    assert peers.divergence([9, 1], [1, 9]) == pytest.approx(0.8636 * 1.8458 - 0.1364 * 1.8458, abs=1e-3)

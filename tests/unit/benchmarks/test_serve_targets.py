"""What bench_serve makes of its rows: ratios within rounds with their intervals, targets, tables, and peers that are absent."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("serve_report")


def row(system: str, turn: int, rate: float, clients: int = 32, **other: Any) -> dict[str, Any]:
    about = {"run": "r", "round": turn, "system": system, "part": "closed", "load": clients, "tokens_per_second": rate}
    rest = {"prompt_tokens_per_second": 9.0, "first_ms": [10.0 * turn, 30.0], "client_cpu_share": 0.1, "failed": []}
    return {**about, **rest, **other}


def test_ratios_are_taken_within_rounds_over_the_best_of_each(report: ModuleType) -> None:
    rows = [row("tunectl", turn, rate) for turn, rate in enumerate((100.0, 200.0, 100.0))]
    rows += [row("vllm", turn, rate) for turn, rate in enumerate((50.0, 100.0, 80.0))]
    rows += [row("llama_cpp", turn, rate) for turn, rate in enumerate((40.0, 90.0, 100.0))]
    found = report.compare(rows, "tunectl", ("vllm", "llama_cpp"), 32)
    assert (found["ratio"], found["pairs"]) == (round(4 ** (1 / 3), 3), 3)
    logs = [math.log(2), math.log(2), 0.0]
    width = 4.302653 * (math.log(2) / math.sqrt(3)) / math.sqrt(3)  # t of two degrees; their standard deviation
    assert (found["low"], found["high"]) == (
        round(math.exp(sum(logs) / 3 - width), 3),
        round(math.exp(sum(logs) / 3 + width), 3),
    )
    assert report.compare(rows[:1] + rows[3:4], "tunectl", ("vllm",), 32) == {
        "ratio": 2.0,
        "low": None,
        "high": None,
        "pairs": 1,
    }
    assert report.compare(rows, "tunectl", ("vllm",), 8) is None


def test_a_target_is_held_by_the_lower_end(report: ModuleType) -> None:
    told = {"ratio": 1.2, "low": 1.06, "high": 1.3, "pairs": 5}
    ratios = {"over_best": {"32": told, "8": {**told, "ratio": 1.5}}, "over_bare": {"32": {**told, "low": None}}}
    assert list(report.judge(ratios)) == [
        "MISSED      8 clients, best of all: 1.5 (1.06 to 1.3, 5 rounds), at least 1.4",
        "held        32 clients, best of all: 1.2 (1.06 to 1.3, 5 rounds), at least 1.05",
        "no interval 32 clients, own bare engine, same share of log-probabilities: 1.2 (None to 1.3, 5 rounds), at least 0.95",
    ]


def test_the_table_is_continued_and_rows_of_other_runs_stay_apart(report: ModuleType, tmp_path: Path) -> None:
    table = tmp_path / "results" / "rows.jsonl"
    assert report.read_rows(table, "r") == []
    for each in (row("tunectl", 0, 100.0), {**row("tunectl", 0, 1.0), "run": "other"}, row("tunectl", 1, 120.0)):
        report.append_row(table, each)
    rows = report.read_rows(table, "r")
    assert [each["tokens_per_second"] for each in rows] == [100.0, 120.0]
    cell = report.summarize(rows)["tunectl"]["closed"]["32"]
    assert (cell["rounds"], cell["requests"], cell["enough_requests"]) == (2, 4, False)
    assert (cell["first_ms_p50"], cell["first_ms_p95"]) == (30.0, 30.0)
    assert (cell["tokens_per_second"], cell["prompt_tokens_per_second"]) == (110.0, 9.0)
    lines = list(report.write_table(report.summarize(rows), {"tunectl": "ours"}))
    assert lines[-1] == "| ours |  |  | 110 + 9; 30.0 / 30.0 |"


def test_a_round_that_was_cut_short_is_made_up_for(report: ModuleType) -> None:
    assert report.count_rounds([], "closed", 32) == (0, 0)
    rows = [row("tunectl", 0, 1.0, 1), row("tunectl", 0, 1.0, 32), row("tunectl", 1, 1.0, 1)]
    assert report.count_rounds(rows, "closed", 32) == (2, 1)
    assert report.count_rounds(rows, "open", 3.0) == (2, 0)


def test_goodput_of_all_rounds(report: ModuleType) -> None:
    about = {"part": "open", "load": 2.0, "failed": [], "good_tokens_per_second": 60.0}
    rows = [
        {**row("tunectl", turn, 0.0), **about, "sent": 10, "good": good, "goodput_per_second": good / 5, "first": first}
        for turn, (good, first) in enumerate([(8, {"p50": 100.0, "p95": 900.0}), (10, {"p50": 200.0, "p95": None})])
    ]
    cell = report.summarize(rows)["tunectl"]["open"]["2"]
    assert (cell["sent"], cell["good_share"], cell["goodput_per_second"]) == (20, 0.9, 1.8)
    assert (cell["first_ms_p50"], cell["first_ms_p95"]) == (150.0, 900.0)


def test_a_peer_that_is_not_installed_is_named_with_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, report: ModuleType
) -> None:
    envs = importlib.import_module("serve_envs")
    with pytest.raises(envs.UnavailableError) as raised:
        envs.find("vllm", tmp_path)
    assert str(raised.value) == f"not installed: python benchmarks/serve_envs.py vllm --place {tmp_path}"
    monkeypatch.setattr(sys, "argv", ["serve_envs.py", "vllama", "--place", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        envs.main()
    assert not list(tmp_path.iterdir())


def test_every_peer_says_its_precision_and_its_settings(report: ModuleType) -> None:
    peers = {peer.name: peer for peer in importlib.import_module("serve_baselines").PEERS}
    names = [name for _, others in report.COMPARISONS.values() for name in others]
    assert set(names) <= set(peers)
    assert "bound to all cores" in peers["vllm"].says
    assert "Q8_0, 32 slots" in peers["llama_cpp"].says
    assert all(any(word in peers[name].says for word in ("bf16", "Q8_0")) for name in report.PEERS_OF_OURS)

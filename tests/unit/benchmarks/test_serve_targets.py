"""What bench_serve makes of its rows: ratios within rounds with their intervals, targets, tables, and peers that are absent."""

from __future__ import annotations

import contextlib
import importlib
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tunectl.training import resource_check

CLOSED_FIELDS = ("tokens_per_second", "prompt_tokens_per_second", "first_ms", "client_cpu_share", "failed")
OPEN_CELL = {
    "sent": 1, "good": 1, "goodput_per_second": 1.0, "good_tokens_per_second": 1.0, "first": {"p50": 1.0, "p95": 1.0},
}  # fmt: skip
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
    found = report.compare(rows, report.Comparison("tunectl", ("vllm", "llama_cpp")), 32)
    assert (found["ratio"], found["pairs"]) == (round(4 ** (1 / 3), 3), 3)
    logs = [math.log(2), math.log(2), 0.0]
    width = 4.302653 * (math.log(2) / math.sqrt(3)) / math.sqrt(3)  # t of two degrees; their standard deviation
    assert (found["low"], found["high"]) == (
        round(math.exp(sum(logs) / 3 - width), 3),
        round(math.exp(sum(logs) / 3 + width), 3),
    )
    over_vllm = report.Comparison("tunectl", ("vllm",))
    assert report.compare(rows[:1] + rows[3:4], over_vllm, 32) == {
        "ratio": 2.0,
        "low": None,
        "high": None,
        "pairs": 1,
    }
    assert report.compare(rows, over_vllm, 8) is None


def test_a_round_in_which_a_peer_failed_has_no_ratio_over_the_best(report: ModuleType) -> None:
    rows = [row("tunectl", turn, 100.0) for turn in range(3)] + [row("llama_cpp", turn, 50.0) for turn in range(3)]
    rows += [row("vllm", turn, 80.0) for turn in range(2)]  # it failed in round 2: 100 over 50 would say too much
    best = report.compare(rows, report.Comparison("tunectl", ("vllm", "transformers_cb", "llama_cpp")), 32)
    assert (best["ratio"], best["pairs"]) == (1.25, 2)


def test_a_target_is_held_by_the_lower_end(report: ModuleType) -> None:
    told = {"ratio": 1.2, "low": 1.06, "high": 1.3, "pairs": 5}
    ratios = {"over_best": {"32": told, "8": {**told, "ratio": 1.5}}, "over_bare": {"32": {**told, "low": None}}}
    assert list(report.judge(ratios)) == [
        "MISSED      8 clients, best of all: 1.5 (1.06 to 1.3, 5 rounds), at least 1.4",
        "held        32 clients, best of all: 1.2 (1.06 to 1.3, 5 rounds), at least 1.05",
        "no interval 32 clients, own bare engine, same share of log-probabilities: 1.2 (None to 1.3, 5 rounds), at least 0.95",
    ]


def test_first_tokens_are_judged_beside_the_best_peer_of_each_round(report: ModuleType) -> None:
    rows = []
    for turn in range(3):
        rows.append(row("tunectl", turn, 1.0, first_ms=[40.0, 50.0, 60.0 + turn]))
        rows.append(row("vllm", turn, 1.0, first_ms=[80.0, 100.0, 50.0]))
        rows.append(row("llama_cpp", turn, 1.0, first_ms=[]))  # it had no token in this window
    ratios = report.compare_all(rows)
    assert ratios["first_p50_over_best"]["32"] == {"ratio": 1.6, "low": 1.6, "high": 1.6, "pairs": 3}
    p95 = ratios["first_p95_over_best"]["32"]
    assert p95["ratio"] == round((100 / 60 * 100 / 61 * 100 / 62) ** (1 / 3), 3)
    assert list(report.judge({name: ratios[name] for name in ratios if "first" in name})) == [
        "held        32 clients, first token p50, best of all: 1.6 (1.6 to 1.6, 3 rounds), at least 1.0",
        f"held        32 clients, first token p95, best of all: {p95['ratio']} ({p95['low']} to {p95['high']}, 3 rounds), at least 1.0",
    ]
    slow = [row("tunectl", turn, 1.0, first_ms=[300.0]) for turn in range(3)]
    ratios = report.compare_all([*slow, *rows[1::3]])
    assert [line[:6] for line in report.judge(ratios) if "first token" in line] == ["MISSED", "MISSED"]


def test_every_number_of_clients_has_targets_for_the_first_token(report: ModuleType) -> None:
    judged = {(comparison, load) for _, comparison, load, _ in report.TARGETS}
    names = [
        f"{which}first_{share}_over_{other}"
        for which, other in (("", "best"), ("apart_", "vllm_adapter"))
        for share in ("p50", "p95")
    ]
    assert {(name, clients) for name in names for clients in (1, 8, 32)} <= judged
    assert {name for name, _ in judged} <= set(report.COMPARISONS)


def test_memory_and_start_are_judged_beside_an_earlier_version(report: ModuleType) -> None:
    rows = [
        {**row(system, turn, 0.0, 0), "part": "started", "megabytes": size, "seconds_to_ready": seconds}
        for turn in range(8)
        for system, size, seconds in (("tunectl", 1010.0 + turn, 4.0), ("before", 1000.0, 3.0))
    ]
    lines = list(report.judge(report.compare_all(rows)))
    assert [line.split(":")[0] for line in lines] == [
        "held        memory after load, the earlier version",
        "MISSED      start time, the earlier version",
    ]
    assert lines[1].endswith("0.75 (0.75 to 0.75, 8 rounds), at least 0.95")
    assert report.summarize(rows) == {}


def test_a_line_that_a_kill_has_cut_spoils_neither_what_was_there_nor_what_follows(
    report: ModuleType, tmp_path: Path
) -> None:
    table = tmp_path / "rows.jsonl"
    report.append_row(table, row("tunectl", 0, 100.0))
    with table.open("a") as lines:
        lines.write('{"run": "r", "round": 1, "sys')
    assert [each["round"] for each in report.read_rows(table, "r")] == [0]
    report.append_row(table, row("tunectl", 2, 120.0))
    assert [each["round"] for each in report.read_rows(table, "r")] == [0, 2]


def test_a_cell_with_too_few_requests_is_named(report: ModuleType) -> None:
    rows = [row("tunectl", turn, 1.0, first_ms=[1.0] * 50) for turn in range(4)] + [row("vllm", 0, 1.0)]
    thin = list(report.find_thin_cells(report.summarize(rows)))
    assert thin == ["too few     vllm, closed, 32: 2 requests of 200"]


def test_the_table_is_continued_and_rows_of_other_runs_stay_apart(report: ModuleType, tmp_path: Path) -> None:
    table = tmp_path / "results" / "rows.jsonl"
    assert report.read_rows(table, "r") == []
    for each in (row("tunectl", 0, 100.0), {**row("tunectl", 0, 1.0), "run": "other"}, row("tunectl", 1, 120.0)):
        report.append_row(table, each)
    rows = report.read_rows(table, "r")
    assert [each["tokens_per_second"] for each in rows] == [100.0, 120.0]
    cell = report.summarize(rows)["tunectl"]["closed"]["32"]
    assert (cell["rounds"], cell["requests"]) == (2, 4)
    assert (cell["first_ms_p50"], cell["first_ms_p95"]) == (30.0, 30.0)
    assert (cell["tokens_per_second"], cell["prompt_tokens_per_second"]) == (110.0, 9.0)
    lines = list(report.write_table(report.summarize(rows), {"tunectl": "ours"}))
    assert lines[3:] == ["| ours | 110 + 9; 30.0 / 30.0 |"]  # nothing of an open part


def test_a_round_that_was_cut_short_is_made_up_for(report: ModuleType) -> None:
    assert report.count_rounds([]) == (0, 0)
    rows = [
        row("tunectl", 0, 1.0, 1),
        row("tunectl", 0, 1.0, 32),
        {"round": 0, "part": "end"},
        row("tunectl", 1, 1.0, 1),
    ]
    assert report.count_rounds(rows) == (2, 1)
    assert report.count_rounds([*rows, row("tunectl", 1, 1.0, 32)]) == (2, 1)  # others had not had their turn


def test_a_run_that_is_cut_goes_on_where_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, report: ModuleType
) -> None:
    serve = importlib.import_module("bench_serve")
    measured: list[tuple[int, float]] = []

    def measure(args: Any, running: Any, *, turn: int, clients: int = 0, rate: float = 0.0) -> dict[str, Any]:
        measured.append((turn, clients or rate))
        if len(measured) == 11:
            raise KeyboardInterrupt
        return OPEN_CELL | {"failed": []} if rate else {key: row("", 0, 1.0)[key] for key in CLOSED_FIELDS}

    monkeypatch.setattr(serve, "measure_closed_loop", measure)
    monkeypatch.setattr(serve, "open_cell", measure)
    monkeypatch.setattr(report, "ROWS", tmp_path / "rows.jsonl")
    args = SimpleNamespace(rounds=3, minutes=60.0, rates=[1.0], quick=False)
    started: list[tuple[str, int]] = []

    @contextlib.contextmanager
    def start_fleet(layout: str, turn: int) -> Iterator[Any]:
        started.append((layout, turn))
        system = SimpleNamespace(memory=lambda: 1.0 + turn, peer=SimpleNamespace(ready="/health"))
        apart = layout == "adapter"
        yield SimpleNamespace(
            running={"vllm_adapter": system} if apart else {},
            absent={} if apart else {"vllm": "not installed"},
            started={"vllm_adapter": 2.0 + turn} if apart else {},
            try_system=lambda name, work: work(None),
        )

    with pytest.raises(KeyboardInterrupt):
        serve.Rounds(args, start_fleet, "r", time.monotonic()).measure()
    result = serve.Rounds(args, start_fleet, "r", time.monotonic()).measure()
    whole = {each["round"] for each in report.read_rows(tmp_path / "rows.jsonl", "r") if each["part"] == "end"}
    assert whole == {0, 1, 3}  # 2 was cut
    assert started == [(layout, turn) for turn in range(4) for layout in ("merged", "adapter")]
    assert [turn for turn, _ in measured] == [0] * 4 + [1] * 4 + [2] * 3 + [3] * 4
    assert result["cells"]["vllm_adapter"]["closed"]["1"]["rounds"] == 4  # what the round that was cut has counts
    assert result["seconds_to_ready"] == {"vllm_adapter": 3.0}
    assert result["megabytes"] == {"vllm_adapter": 2}
    assert result["cannot_be_measured_here"] == {"vllm": "not installed"}
    again = serve.Rounds(args, start_fleet, "r", time.monotonic()).measure()
    assert len(measured) == 15
    assert again == result


def test_rows_of_other_server_settings_do_not_add_up(report: ModuleType) -> None:
    serve = importlib.import_module("bench_serve")
    result = {"machine": {"cores": 2}, "settings": {"rates": [1.0]}}
    names = [
        serve.run_name(result, SimpleNamespace(settings={"inference_log": {"logprob_share": share}}))
        for share in (1.0, 0.5, 1.0)
    ]
    assert names[0] == names[2] != names[1]


def test_what_is_measured_on_request_is_left_out_of_a_whole_run(report: ModuleType, tmp_path: Path) -> None:
    serve = importlib.import_module("bench_serve")
    about = {"memory": 0, "place": tmp_path}
    usual = [
        [peer.name for peer in serve.Fleet(SimpleNamespace(**about, only=None), None, layout, 1).peers]
        for layout in serve.LAYOUTS
    ]
    assert usual == [
        ["bare", "vllm", "transformers_cb", "llama_cpp", "tunectl"],
        ["bare_apart", "vllm_adapter", "tunectl_apart"],
    ]
    named = serve.Fleet(SimpleNamespace(**about, only=["tunectl", "tunectl_no_logprobs"]), None, "merged").peers
    assert [(peer.name, peer.logprob_share) for peer in named] == [("tunectl", None), ("tunectl_no_logprobs", 0.0)]


def test_systems_that_leave_too_little_memory_are_not_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, report: ModuleType
) -> None:
    serve = importlib.import_module("bench_serve")
    stopped: list[str] = []

    def start(self: Any, peer: Any) -> None:
        self.running[peer.name] = SimpleNamespace(stop=lambda: stopped.append(peer.name))

    monkeypatch.setattr(serve.Fleet, "_start", start)
    fleet = serve.Fleet(SimpleNamespace(memory=0, place=tmp_path, only=["bare"]), None, "merged")
    with fleet:
        pass
    monkeypatch.setattr(resource_check, "available_memory", lambda: (serve.MIN_FREE_MB - 1) << 20)
    with pytest.raises(SystemExit, match="bare leave 2047 MB of memory, and 2048 are needed"), fleet:
        pass
    assert stopped == ["bare", "bare"]


def test_two_versions_are_started_in_turn_and_pairs_add_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, report: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    starts = importlib.import_module("serve_starts")
    started: list[tuple[str, str]] = []

    def start_once(peer: Any, fixtures: Any, place: Path, name: str) -> dict[str, Any]:
        started.append((peer.name, name))
        return {"seconds_to_ready": 2.0 if peer.name == "tunectl" else 3.0, "megabytes": 1000.0}

    monkeypatch.setattr(starts, "start_once", start_once)
    monkeypatch.setattr(starts, "adapt_settings", lambda fixtures, _: fixtures)
    monkeypatch.setattr(report, "ROWS", tmp_path / "rows.jsonl")
    old = tmp_path / "before"
    (old / "src/tunectl").mkdir(parents=True)
    fixtures = SimpleNamespace(quick=False)
    starts.measure(fixtures, tmp_path, old, 2, "r")
    found = starts.measure(fixtures, tmp_path, old, 3, "r")
    both = {"tunectl", "before"}
    rounds = [started[at : at + 2] for at in range(0, len(started), 2)]
    assert [name for (_, name), _ in rounds] == ["warm-up", "starts/0", "starts/1", "warm-up", "starts/2"]
    assert all({name for name, _ in each} == both for each in rounds)
    assert [each[0][0] for each in rounds[1:3]] == ["before", "tunectl"]
    assert (len(found["starts"]), found["ratios"]["start_over_before"]["0"]["ratio"]) == (6, 1.5)
    assert "held        start time, the earlier version: 1.5 (1.5 to 1.5, 3 rounds)" in capsys.readouterr().out
    (old / "src/tunectl/new.py").write_text("new = 1")
    assert len(starts.measure(fixtures, tmp_path, old, 1, "r")["starts"]) == 2  # another version is another run


def test_an_earlier_version_runs_its_own_sources(report: ModuleType, tmp_path: Path) -> None:
    starts = importlib.import_module("serve_starts")
    ours = next(peer for peer in starts.PEERS if peer.name == "tunectl")
    setup = SimpleNamespace(fixtures=SimpleNamespace(stores={"merged": tmp_path}), release="merged", folder=tmp_path)
    changed = starts.rename_earlier(ours, tmp_path / "before").env(setup)
    assert changed == {**ours.env(setup), "PYTHONPATH": str(tmp_path / "before/src")}
    with pytest.raises(SystemExit, match="its settings cannot be read: "):
        starts.adapt_settings(SimpleNamespace(), tmp_path / "before")


def test_goodput_of_all_rounds(report: ModuleType) -> None:
    about = {"part": "open", "load": 2.0, "failed": [], "good_tokens_per_second": 60.0}
    rows = [
        {**row("tunectl", turn, 0.0), **about, "sent": 10, "good": good, "goodput_per_second": good / 5, "first": first}
        for turn, (good, first) in enumerate([(8, {"p50": 100.0, "p95": 900.0}), (10, {"p50": 200.0, "p95": None})])
    ]
    cell = report.summarize(rows)["tunectl"]["open"]["2"]
    assert (cell["sent"], cell["good_share"], cell["goodput_per_second"]) == (20, 0.9, 1.8)
    assert (cell["first_ms_p50"], cell["first_ms_p95"]) == (150.0, 900.0)
    assert list(report.write_table(report.summarize(rows), {}))[-1] == "| tunectl | 1.8 (0.9); 150.0 / 900.0 |"


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
    names = {name for each in report.COMPARISONS.values() for name in (each.system, *each.others)}
    assert names - {"before"} <= set(peers)
    assert "bound to all cores" in peers["vllm"].says
    assert "Q8_0, 32 slots" in peers["llama_cpp"].says
    assert all(any(word in peers[name].says for word in ("bf16", "Q8_0")) for name in report.PEERS_OF_OURS)

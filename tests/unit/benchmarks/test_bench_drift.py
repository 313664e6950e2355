"""What bench_drift makes of its trials."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from drift_fixtures import RULE, rows, tools

from tunectl.monitoring.power_study import Rate

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("bench_drift")


def cell(change: str, rows: int, third: Rate, ninth: Rate, tone: Rate) -> dict[str, object]:
    return {
        "pair": "reviews, tweets", "change": change, "rows": rows, "third": third, "ninth": ninth, "delay_rows": 300,
        "in_a_row": Rate(1, 100), "alone": {"prompt_tone": tone, "prompt_text": Rate(9, 10)},
    }  # fmt: skip


def null(false: list[int]) -> dict[str, object]:
    return {"pair": "a, b", "kind": "run", "rows": 300, "evaluations": [1000] * len(false), "false": false}


def test_a_target_is_missed_where_the_interval_lies_below_it(bench) -> None:
    good = [cell(*key, Rate(100, 100), Rate(100, 100), Rate(98, 100)) for key in bench.TARGETS]
    assert bench.find_missed(good, [null([1, 0, 1])]) == []
    key = ("20 points more negative", 300)
    assert bench.find_missed([cell(*key, Rate(64, 100), Rate(94, 100), Rate(93, 100))], []) == []
    missed = bench.find_missed([cell(*key, Rate(50, 100), Rate(80, 100), Rate(70, 100))], [])
    assert missed == [
        "20 points more negative in reviews, tweets at 300 rows: 50.0% (40.4% to 59.6%) by the third window, 70% wanted",
        "20 points more negative in reviews, tweets at 300 rows: 80.0% (71.1% to 86.7%) by the ninth window, 95% wanted",
        "20 points more negative in reviews, tweets at 300 rows: the tone signal flags 70.0% (60.4% to 78.1%), 95% wanted",
    ]


def test_more_than_one_false_verdict_in_a_thousand_is_missed(bench) -> None:
    assert bench.find_missed([], [null([2, 0]), null([0, 3])]) == ["5 false verdicts in 4,000 evaluations, 0.1% wanted"]
    assert bench.find_missed([], [null([2, 0]), null([0, 2])]) == []


def test_what_was_measured_is_not_measured_again(bench, tmp_path: Path) -> None:
    journal = importlib.import_module("drift_journal")
    tasks = [journal.Task("30 % foreign", 0, 100, begin, 2) for begin in (0, 2)]
    path, pairs = tmp_path / "kept.jsonl", [(SimpleNamespace(name="a, b"), None)]
    first = journal.Journal(path, ["encoder"])
    first.run_all(tasks[:1], measure, 1, time.monotonic() + 60, list)
    assert journal.Journal(path, ["static"]).done == {}
    again = journal.Journal(path, ["encoder"])
    again.run_all(tasks, refuse_first, 1, time.monotonic() + 60, list)
    (row,) = again.power_figures(pairs, {("30 % foreign", 100): None})
    assert (str(row["third"]), row["ninth"].count, row["delay_rows"]) == ("50.0% (15.0% to 85.0%)", 2, 100)
    assert (row["in_a_row"].count, row["alone"]["prompt_text"].count) == (2, 4)
    late = journal.Journal(path, ["other"])
    late.run_all(tasks, measure, 1, time.monotonic() - 1, list)
    assert late.done == {}, "no time is left"


def measure(task):
    return task, {"delays": [1, None], "in_a_row": 1, "alone": {"prompt_text": 2}}


def refuse_first(task):
    assert task.begin == 2
    return measure(task)


def test_tasks_come_in_rounds(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = SimpleNamespace(own=SimpleNamespace(negative=[]))
    monkeypatch.setattr(bench, "READ", [(pair, None)] * 2)
    args = SimpleNamespace(runs=2, length=50, sequences=9, trials=3)
    tasks = bench.list_tasks(args)
    assert len(tasks) == len(set(tasks)) == 2 * 2 + 3 * 2 * 2
    assert sum(one.trials for one in tasks if one.kind == "30 % foreign") == 6
    assert [one.begin for one in tasks if one.kind == "30 % foreign"] == [0, 0, 2, 2]


def test_the_tables_have_every_figure(bench) -> None:
    shown = importlib.import_module("drift_report")
    powers = [cell(*key, Rate(97, 100), Rate(100, 100), Rate(98, 100)) for key in bench.TARGETS]
    lines = shown.power_table(powers).splitlines()
    assert len(lines) == 2 + 4
    assert {line.count("|") for line in lines} == {9}
    assert "97.0% (91.5% to 99.0%)" in lines[-1]
    lines = shown.null_table([null([2, 0, 1])]).splitlines()
    assert lines[-2] == "| one long run | a, b | 300 | 3 | 3,000 | 3 | 1.00 | 2 |"
    assert lines[-1] == "| together |  |  | 3 | 3,000 | 3 | 1.00 | 2 |"
    peers = shown.peer_table({"Evidently text": {"nothing": Rate(1, 5000), "15 % foreign": Rate(3, 4)}})
    assert "0.02 %" in peers, "a rare thing is not 0.0 %"
    assert shown.plain({"a": [Rate(1, 2)]})["a"][0]["count"] == 1


def test_a_sequence_is_drawn_tested_and_answered(bench, tmp_path: Path) -> None:
    corpora, trials = importlib.import_module("drift_corpora"), importlib.import_module("drift_trials")
    own = corpora.Corpus("own", [row.prompt for row in rows(400, seed=1)], list(range(100)))
    other = corpora.Corpus("other", [row.prompt for row in rows(200, seed=2, topics=["bread"])], [])
    cached = corpora.with_cache(tools(), [own, other], tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2
    pair = corpora.measure(own, other, cached)
    found = trials.run(pair, "30 % foreign", 60, 2, RULE, 200)
    assert found.rates.delays == [1, 1] or found.rates.by_window(9).share == 1
    assert found.alone["prompt_text"] == 2
    quiet = trials.run(pair, "nothing", 60, 1, RULE, 200)
    assert quiet.rates.by_window(3).count == 0
    with pytest.raises(SystemExit, match=r"films.csv does not exist"):
        corpora.read("films.csv", tmp_path)


def test_a_divergence_of_equal_counts_is_nothing(bench) -> None:
    peers = importlib.import_module("drift_baselines")
    assert peers.divergence([3, 4, 5], [3, 4, 5]) == 0
    assert peers.divergence([9, 1], [1, 9]) == pytest.approx(0.8636 * 1.8458 - 0.1364 * 1.8458, abs=1e-3)

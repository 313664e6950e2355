"""What bench_engine compares: levers, the environment of each setting, and what an interval says."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("bench_engine")


@pytest.fixture
def known(bench: ModuleType) -> ModuleType:
    return importlib.import_module("engine_settings")


def test_every_setting_belongs_to_a_lever(known: ModuleType) -> None:
    named = {name for lever in known.LEVERS.values() for name in lever.settings}
    assert named == set(known.SETTINGS) - {known.OURS}


def test_an_allocator_is_loaded_before_that_of_glibc_or_named_as_absent(
    known: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = known.SETTINGS["f32, jemalloc"]
    monkeypatch.setattr(known, "find_library", lambda name: f"lib{name}.so.2")
    assert known.build_environment(setting) == {"TBB_ENABLE_SANITIZERS": "1", "LD_PRELOAD": "libjemalloc.so.2"}
    monkeypatch.setattr(known, "find_library", lambda _: None)
    with pytest.raises(known.UnavailableError, match="not installed: apt install libjemalloc2"):
        known.build_environment(setting)


@pytest.mark.parametrize(("mode", "given"), [("always [madvise] never\n", True), ("always madvise [never]\n", False)])
def test_huge_pages_are_measured_only_where_the_kernel_gives_them(
    known: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str, given: bool
) -> None:
    monkeypatch.setattr(known, "THP", tmp_path / "enabled")
    known.THP.write_text(mode)
    setting = known.SETTINGS["f32, huge pages"]
    if given:
        assert known.build_environment(setting) == {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    else:
        with pytest.raises(known.UnavailableError, match="the kernel gives no huge pages"):
            known.build_environment(setting)


def cell(name: str, turn: int, rate: float) -> dict[str, Any]:
    about = {"run": "r", "round": turn, "system": name, "part": "closed", "load": 32, "tokens_per_second": rate}
    return {**about, "first_ms": [100.0 / rate], "step_ms_p95": 1.0, "megabytes": 1.0, "huge_megabytes": 0.0}


def test_a_setting_is_called_faster_by_its_whole_interval_and_enough_rounds(bench: ModuleType) -> None:
    gains = {"f32, huge pages": 1.1, "int4": 0.9, "f32, jemalloc": 1.0}
    rows = [cell("f32", turn, 100.0) for turn in range(8)]
    rows += [cell(name, turn, 100.0 * gain + turn % 2) for name, gain in gains.items() for turn in range(8)]
    rows += [cell("f32, tcmalloc", turn, 150.0) for turn in range(7)]
    figures = bench.summarize(rows, ["f32", *gains, "f32, tcmalloc"])
    words = [line.rpartition(": ")[2].rstrip(" |") for line in bench.write_table(figures)[2:]]
    assert words == ["faster", "slower", "faster", "7 of 8 rounds"]
    even = bench.summarize([*rows[:8], *(cell("int4", turn, 99.0 + turn % 3) for turn in range(8))], ["f32", "int4"])
    assert bench.write_table(even)[2].endswith(": no difference shown |")
    assert figures["int4"]["32"]["first_p50_over_f32"]["ratio"] == pytest.approx(0.905, abs=0.001)


class StandIn:
    """A worker that answers at once, and is killed in the middle of a round."""

    asked = 0
    killed_at = 5

    def __init__(self, setting: Any, releases: Any) -> None:
        pass

    def ask(self, plan: dict[str, Any]) -> dict[str, Any]:
        StandIn.asked += 1
        if StandIn.asked == self.killed_at:
            raise KeyboardInterrupt
        figures = ("tokens_per_second", "first_ms", "step_ms_p95", "megabytes", "huge_megabytes")
        return {name: cell("", 0, 100.0)[name] for name in figures}

    def close(self) -> None:
        pass


def test_a_run_that_is_cut_goes_on_where_it_was(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixtures = type("Fixtures", (), {"releases": {"merged": tmp_path}})
    monkeypatch.setattr(bench.serve_fixtures, "prepare_fixtures", lambda *_: fixtures)
    monkeypatch.setattr(bench, "Worker", StandIn)
    monkeypatch.setattr(bench, "Prompts", lambda *_, **__: type("Prompts", (), {"make": lambda _, name: []})())
    monkeypatch.setattr(bench, "ROWS", tmp_path / "rows.jsonl")
    monkeypatch.setattr(sys, "argv", ["bench_engine.py", "--lever", "partitioner", "--rounds", "2"])
    with pytest.raises(KeyboardInterrupt):
        bench.main()
    bench.main()
    assert StandIn.asked == 5 + 2 * 6  # a round has two settings and three numbers of streams
    assert '"pairs": 3' in capsys.readouterr().out  # what the round that was cut has counts
    bench.main()
    assert StandIn.asked == 17


def test_weights_are_exported_once_with_what_they_lose(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fixtures, made = bench.serve_fixtures, []
    (tmp_path / "artifacts/sft").mkdir(parents=True)
    (tmp_path / "artifacts/sft/adapter_model.safetensors").write_bytes(b"weights")

    def package(weights: str, words: tuple[str, ...], folder: Path, store: Path, _: Path) -> Any:
        assert not store.exists()  # what a kill has left is cleared away
        store.mkdir(parents=True)
        made.append((weights, words[0]))
        if len(made) == 2:
            raise KeyboardInterrupt
        return type("Metrics", (), {"measures": {"bleu": 30.0, "bleu_engine": 29.0 - len(made)}})

    monkeypatch.setattr(fixtures, "_package", package)
    monkeypatch.setattr(fixtures, "_champion", lambda store: store / "release")
    with pytest.raises(KeyboardInterrupt):
        fixtures.prepare_weights(tmp_path, tmp_path / "artifacts")
    found = fixtures.prepare_weights(tmp_path, tmp_path / "artifacts")
    assert found == fixtures.prepare_weights(tmp_path, tmp_path / "artifacts")
    assert made == [("int8", "package=openvino"), ("int4", "package=openvino_int4"), ("int4", "package=openvino_int4")]
    assert {weights: measures["bleu_engine"] for weights, (_, measures) in found.items()} == {
        "int8": 28.0,
        "int4": 26.0,
    }
    assert found["int4"][0].parts[-2:] == ("int4", "release")

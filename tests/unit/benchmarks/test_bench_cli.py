"""What bench_cli measures: the starts of demo and console, and those from a fresh wheel apart from its install."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def test_demo_and_console_are_in_its_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    bench = importlib.import_module("bench_cli")
    asked: dict[str, list[str]] = {}

    def run(words: list[str], **_: object) -> None:
        if "hatchling" in words:
            (Path(words[-1]) / "tunectl_lm-0.whl").touch()
        if "pip" in words:
            packages = Path(words[words.index("--python") + 1]).parents[1] / "lib" / "python3" / "site-packages"
            packages.mkdir(parents=True)
            (packages / "hydra.py").write_bytes(bytes(2_000_000))

    def measure(words: list[str], *_: object) -> dict[str, float]:
        asked[f"m{len(asked)}"] = words
        return {"cpu_ms": 10.0 + len(asked), "wall_ms": 20.0}

    monkeypatch.setattr(bench.sys, "argv", ["bench_cli.py"])
    monkeypatch.setattr(bench.subprocess, "run", run)
    monkeypatch.setattr(bench.venv, "create", lambda *_, **__: None)
    monkeypatch.setattr(bench, "machine", dict)
    monkeypatch.setattr(bench, "versions", lambda *_: {})
    for name in ("time_command", "time_to_link"):
        monkeypatch.setattr(bench, name, measure)
    bench.main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    listening = [name for name in result["figures"] if name.endswith("to listening")]
    assert listening == [
        "demo, to listening",
        "console, to listening",
        "demo from it, first start, to listening",
        "demo from it, later starts, to listening",
    ]
    assert "wheel with [console], installed" in result["figures"]
    assert result["ratios_to_bare"].keys() == result["figures"].keys()
    assert result["core_installed_mb"] == 2.0
    install = next(words for words in asked.values() if "--no-compile" in words)
    assert install[-1].endswith("tunectl_lm-0.whl[console]")

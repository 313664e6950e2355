"""``tunectl check`` and ``tunectl estimate``: the tree with origins, JSON, the schema, the estimate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conf_copy import copy_conf

from tunectl.backends.modeling import layer_benchmark
from tunectl.cli.main import main


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy_conf(tmp_path)
    (tmp_path / "conf/overrides.yaml").write_text("- ingest=table\n- data.path=rows.csv\n")
    rows = "".join(
        f'"brief number {row} about a small place","an answer of some words, number {row}"\n' for row in range(60)
    )
    (tmp_path / "rows.csv").write_text("prompt,completion\n" + rows)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_tree_is_printed_with_origins(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "sft.lora_rank=32"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["lora_rank", "32", "override", "sft.lora_rank=32"] in rows
    assert ["device", "cpu", "conf/hardware/cpu.yaml:2"] in rows
    assert ["path", "rows.csv", "conf/overrides.yaml:2"] in rows
    assert ["sft"] in rows


def test_json_holds_settings_origins_and_choices(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--json", "sft=dora"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["settings"]["sft"]["method"], found["choices"]["sft"]) == ("dora", "dora")
    assert found["origins"]["sft.lora_rank"] == "conf/sft/lora.yaml:3"
    assert found["settings"]["data"] == {"path": "rows.csv"}


def test_nothing_is_recorded_and_recorded_words_can_be_left_out(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (project / "conf/overrides.yaml").read_text()
    assert main(["check", "seed=3", "--ignore-overrides", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["choices"]["ingest"] == "local_lens"
    assert (project / "conf/overrides.yaml").read_text() == before


def test_a_mistake_over_recorded_words_says_how_to_forget_them(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "sft.lora_rank=0"]) == 2
    assert capsys.readouterr().err == (
        "tunectl: sft.lora_rank = 0 (override sft.lora_rank=0): must be a whole number from 1 to 1024\n  nothing was run\n"
        "  replayed from earlier runs: ingest=table data.path=rows.csv; tunectl repro --reset-overrides forgets them\n"
    )


def test_the_schema_goes_to_the_screen_or_a_file(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--schema"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["title"] == "tunectl configuration"
    assert main(["check", "--schema", "out.json"]) == 0
    assert capsys.readouterr().out == "wrote out.json\n"
    assert json.loads(Path("out.json").read_text()) == shown


def test_the_estimate_counts_the_sources(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["estimate", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    stages = {row["stage"]: row for row in found["stages"]}
    assert stages["ingest"]["basis"] == "1 files, 60 rows (counted): 0 documents, 60 answers"
    assert found["model"] == {"parameters": 135_000_000, "layers": 30, "source": "name"}
    assert 0 < stages["sft"]["minutes"] < 60
    assert found["minutes"] == pytest.approx(sum(row["minutes"] for row in found["stages"]), abs=0.1)
    speed = layer_benchmark.Speed(**found["machine"]["layer_seconds"])
    monkeypatch.setattr(layer_benchmark, "layer_speed", lambda *_, **__: speed)  # it was timed a moment ago
    assert main(["estimate"]) == 0
    out = capsys.readouterr().out
    assert "in all about" in out
    assert found["curate_engine"] in " ".join(out.split())


def test_an_estimate_without_its_source_says_so_before_the_machine_is_timed(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_benchmark, "layer_speed", lambda *_, **__: pytest.fail("it was timed"))
    assert main(["estimate", "data.path=none.csv"]) == 2
    assert capsys.readouterr().err == (
        "tunectl: ingest.sources.table.path = none.csv: there is no such file or folder\n"
        "  paths are relative to the project, where dvc.yaml is\n  more: tunectl docs there-is-no-such-file-or-folder\n"
    )


def test_a_model_that_tells_no_size_must_be_fetched_first(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["model=folder", "model.source.path=some/model"]
    assert main(["estimate", *words]) == 2
    assert capsys.readouterr().err == (
        "tunectl: model.source.path = some/model: the size is not in the name, and the model is not downloaded yet\n"
        "  run its stage first: tunectl repro --to model\n  more: tunectl docs model-source-the-size-is-not-in\n"
    )

"""What trackers are told of a build, and the spool that keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.schema.track import Track
from tunectl.core.errors import ArtifactError
from tunectl.tracking import build_record, spool
from tunectl.tracking.build_record import BuildRecord, StageRecord


def record(name: str = "a") -> BuildRecord:
    stage = StageRecord(name="sft", metrics={"validation_loss": 1.5}, curves={"loss": [(1, 3.0), (2, 2.0)]})
    return BuildRecord(
        id=name,
        project="shop",
        started=1e9,
        seconds=3.0,
        exit_code=0,
        tags={},
        params={},
        metrics={},
        digests={},
        stages=[stage],
    )


def test_only_settings_that_a_build_reads_are_reported_and_no_password() -> None:
    overrides = [
        "sft.lora_rank=8", "sft=dora", "seed=3", "serve.port=1", "inference_log.url=postgresql://me:secret@host/log",
        "evaluate.judge.base_url=http://me:secret@host/v1", "data.path=rows.csv",
        "evaluate.judge.base_url=https://me:se/cret@host/v1", "evaluate.judge.base_url=https://host/v1?api_key=sk-secret",
    ]  # fmt: skip
    found = build_record.select_params(overrides, ["sft", "evaluate"])
    assert found == {"sft.lora_rank": "8", "sft": "dora", "seed": "3", "data.path": "rows.csv"}


def test_a_stage_has_its_numbers_and_its_curves(tmp_path: Path) -> None:
    layout = ProjectPaths(tmp_path)
    atomic_io.write_json(
        layout.metrics("sft"), {"validation_loss": 1.5, "systems": {"tuned": {"bleu": 2}}, "word": "x", "none": None}
    )
    atomic_io.write_text(layout.plots("sft") / "history.csv", "step,loss,validation_loss\n1,3.0,\n2,2.0,2.5\n")
    found = build_record.read_stage(layout, "sft")
    assert found.metrics == {"validation_loss": 1.5, "systems.tuned.bleu": 2.0}
    assert found.curves == {"loss": [(1, 3.0), (2, 2.0)], "validation_loss": [(2, 2.5)]}
    assert build_record.read_stage(layout, "cpt") == StageRecord(name="cpt", metrics={}, curves={})


def test_numbers_that_are_none_are_left_out() -> None:
    assert dict(build_record.flatten({"a": float("nan"), "b": {"c": True, "d": float("inf")}, "e": [1]})) == {
        "b.c": 1.0
    }


def test_the_spool_keeps_a_build_whole_until_it_is_removed(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<html>")
    for name in ("b", "a"):
        spool.save(tmp_path / "spool", record(name), [(tmp_path / "report.html", "evaluate/report.html")])
    folders = spool.list_builds(tmp_path / "spool")
    assert [folder.name for folder in folders] == ["a", "b"]
    assert spool.load(folders[0]) == record("a")
    assert (folders[0] / "files" / "evaluate" / "report.html").read_text() == "<html>"
    spool.remove(folders[0])
    assert [folder.name for folder in spool.list_builds(tmp_path / "spool")] == ["b"]


def test_a_spool_whose_tracker_never_answers_does_not_grow_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "MAX_BUILDS", 2)
    for name in ("a", "b", "c"):
        spool.save(tmp_path, record(name), [])
    assert [folder.name for folder in spool.list_builds(tmp_path)] == ["b", "c"]


def test_a_damaged_build_is_an_error(tmp_path: Path) -> None:
    folder = spool.save(tmp_path, record(), [])
    (folder / spool.RECORD).write_text("{")
    with pytest.raises(ArtifactError):
        spool.load(folder)


TRACK = {
    "to": ["mlflow"],
    "experiment": "shop",
    "uri": None,
    "registry_uri": None,
    "registered_model": None,
    "timeout_seconds": 5,
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"to": [], "registered_model": "shop"},
            "registered_model is shop, and track.to has no mlflow; add it, or set registered_model to null",
        ),
        (
            {"registry_uri": "databricks-uc", "registered_model": "shop"},
            "registered_model is shop; with registry_uri databricks-uc it must be catalog.schema.model",
        ),
        ({"registered_model": "a.b"}, "registered_model"),
    ],
)
def test_a_section_that_cannot_work_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Track.model_validate({**TRACK, **changes})


def test_unity_catalog_takes_three_parts() -> None:
    uc = {"registry_uri": "databricks-uc", "registered_model": "main.ads.local_lens"}
    assert Track.model_validate({**TRACK, **uc}).registered_model == "main.ads.local_lens"

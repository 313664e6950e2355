"""Where a release comes from: which data, which configuration, which code."""

from __future__ import annotations

from pathlib import Path

from tunectl.artifacts import atomic_io, manifest
from tunectl.artifacts.manifest import Manifest
from tunectl.artifacts.paths import ProjectPaths
from tunectl.registry.lineage import collect_lineage


def project(root: Path) -> ProjectPaths:
    layout = ProjectPaths(root)
    for stage, sources in (("ingest", {"data/a.csv": "1" * 64, "data/gone.csv": None}), ("sft", {})):
        record = {"settings": {"of": stage}, "code": f"{stage}-code", **({"sources": sources} if sources else {})}
        atomic_io.write_json(layout.config(stage), record)
        manifest.write(layout.artifact(stage), Manifest(stage, "config"))
    return layout


def test_data_configuration_and_code_are_named(tmp_path: Path) -> None:
    layout = project(tmp_path)
    folders = {stage: layout.artifact(stage) for stage in ("ingest", "sft", "align")}
    found = collect_lineage("tiny", "rev", folders, layout)
    assert (found.base, found.revision) == ("tiny", "rev")
    assert set(found.stages) == {"ingest", "sft"}  # align left nothing
    assert found.configs == {stage: atomic_io.sha256_json({"of": stage}) for stage in ("ingest", "sft")}
    assert found.code == {"ingest": "ingest-code", "sft": "sft-code"}
    assert found.sources == {"data/a.csv": "1" * 64, "data/gone.csv": None}


def test_another_weight_another_setting_and_another_row_are_seen(tmp_path: Path) -> None:
    layout = project(tmp_path)
    folders = {"sft": layout.artifact("sft")}
    before = collect_lineage("tiny", "rev", folders, layout)
    (layout.artifact("sft") / "adapter_model.safetensors").write_text("weights")
    manifest.write(layout.artifact("sft"), Manifest("sft", "config"))
    after = collect_lineage("tiny", "rev", folders, layout)
    assert after.stages != before.stages
    atomic_io.write_json(layout.config("sft"), {"settings": {"of": "another"}, "code": "sft-code"})
    assert collect_lineage("tiny", "rev", folders, layout).configs["sft"] != after.configs["sft"]
    atomic_io.write_json(layout.config("ingest"), {"settings": {}, "code": "c", "sources": {"data/a.csv": "2" * 64}})
    assert collect_lineage("tiny", "rev", folders, layout).sources["data/a.csv"] == "2" * 64

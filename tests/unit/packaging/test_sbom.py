"""The bill of materials of a Bento, held against CycloneDX's own schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunectl.backends.export import bento_build, sbom
from tunectl.registry.release_manifest import ReleaseManifest

ROOT = Path(__file__).parents[3]
FILES = {"adapter/adapter_model.safetensors": "a" * 64, "MODEL_CARD.md": "b" * 64}


def build(engine: str, store: str = ".tunectl/releases", bentofile: str | None = None) -> dict:
    manifest = ReleaseManifest(
        "0123456789abcdef", "2026-01-01T00:00:00+00:00", "shop", None, engine, "adapter", FILES, 10
    )
    text = (ROOT / "bentofile.yaml").read_text() if bentofile is None else bentofile
    return sbom.build_sbom(manifest, bento_build._requirements(engine, store), text)


@pytest.mark.parametrize("engine", ["openvino", "transformers", "vllm"])
def test_it_is_valid_and_names_every_package_of_the_lock(engine: str) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    made = build(engine)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(made)) is None
    kinds = {one["name"]: one["type"] for one in made["components"]}
    assert (kinds["shop"], kinds["python"], kinds["tunectl-lm"]) == (
        "machine-learning-model",
        "container",
        "application",
    )
    lock = (ROOT / f"requirements/serve-{engine}.txt").read_text()
    locked = {line.partition("==")[0].partition("[")[0] for line in lock.splitlines() if line and line[0] not in " #"}
    assert locked <= kinds.keys()
    ranges = [one["name"] for one in made["components"] if one["type"] == "library" and "version" not in one]
    assert ranges == (["torch"] if engine == "transformers" else [])
    assert "--hash" not in json.dumps(made)


def test_the_same_content_is_the_same_text_and_a_driver_is_in_it() -> None:
    assert build("openvino") == build("openvino")
    names = {one["name"] for one in build("openvino", "s3://bucket/releases")["components"]}
    assert "s3fs" in names


def test_a_digest_of_the_base_image_is_reported() -> None:
    made = build("openvino", bentofile=f'docker:\n  base_image: "python:3.13-slim@sha256:{"c" * 64}"\n')
    (image,) = [one for one in made["components"] if one["type"] == "container"]
    assert image["version"] == f"sha256:{'c' * 64}"
    assert image["purl"] == f"pkg:oci/python@sha256%3A{'c' * 64}?tag=3.13-slim"

"""The Bento, built by BentoML from the project's bentofile."""

import json
import re
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml

from tunectl import __version__
from tunectl.access import signatures
from tunectl.access.signatures import TrustedKey, TrustStore
from tunectl.backends.export import bento_build
from tunectl.config.schema.serve import ServeSettings
from tunectl.core.distribution import DISTRIBUTION
from tunectl.core.errors import InfrastructureError
from tunectl.registry import release_manifest, release_statement
from tunectl.registry.release_manifest import BuildFacts

ROOT = Path(__file__).parents[2]
FACTS = BuildFacts("demo", "openvino", "merged")
AT = "2026-01-01T00:00:00+00:00"
SECTIONS = ("serve", "inference_log", "annotate")
SETTINGS = ServeSettings.model_validate(
    {"project": "demo"}
    | {name: yaml.safe_load((ROOT / "conf" / name / "default.yaml").read_text()) for name in SECTIONS}
)
HEAVY = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "hydra-core", "dvc", "nncf", "optimum")


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "release" / "adapter").mkdir(parents=True)
    (tmp_path / "release" / "adapter" / "adapter_model.safetensors").write_text("weights")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.timeout(900)
def test_a_bento_carries_release_settings_and_what_its_engine_needs(project):
    bento_build.build(project / "release", FACTS, "demo", project / "bento", settings=SETTINGS, at=AT)
    told = yaml.safe_load((project / "bento" / "bento.yaml").read_text())
    (seed,) = (project / "bento" / "src" / "release").iterdir()
    assert (told["name"], told["version"], told["service"]) == (
        "demo",
        seed.name,
        "tunectl.services.bento_service:TunectlService",
    )
    assert told["labels"] == {"release": seed.name, "project": "demo", "engine": "openvino", "layout": "merged"}
    assert release_manifest.verify(seed) == []
    assert release_manifest.load(seed).created_at == AT
    parts = json.loads((project / "bento" / "src" / "sbom.cdx.json").read_text())["components"]
    assert {"demo", "openvino-genai", "python"} <= {one["name"] for one in parts}
    assert '"store"' in (project / "bento" / "src" / "serve.json").read_text()
    assert (project / "bento" / "src" / "tunectl" / "services" / "bento_service.py").is_file()
    assert [one.version for one in distributions(name=DISTRIBUTION, path=[str(project / "bento" / "src")])] == [
        __version__
    ]
    assert not list((project / "bento").rglob("__pycache__"))
    wanted = (project / "bento" / "env" / "python" / "requirements.txt").read_text().lower()
    assert "openvino-genai==" in wanted
    assert not [name for name in HEAVY if f"\n{name}==" in wanted or f"\n{name}>=" in wanted]
    docker = (project / "bento" / "env" / "docker" / "Dockerfile").read_text()
    assert "FROM python:3.13-slim" in docker
    assert "HEALTHCHECK" in docker
    assert "build-essential" not in docker
    *_, serving = docker.partition(" AS serving\n")  # the stage that becomes the image
    assert "USER 1034\n" in serving
    assert "TUNECTL_KEYS=/data/keys.json" in serving
    assert "HF_HUB_OFFLINE=1" in serving


def test_the_seed_is_signed_where_a_key_is_named(project, monkeypatch):
    key = signatures.generate_key(project / "ci.key")
    trusted = project / "trusted.json"
    signatures.add_trusted_key(trusted, TrustedKey("ci", "release", key.public_key, datetime.now(UTC)))
    monkeypatch.setenv(signatures.RELEASE_KEY_ENV, str(project / "ci.key"))
    context = project / "context"
    manifest = bento_build.build_context(project / "release", FACTS, context, settings=SETTINGS, at=AT)
    statement = (context / "release" / f"{manifest.id}.intoto.json").read_bytes()
    checked = release_statement.check_statement(statement, manifest.id, TrustStore(trusted))
    assert (checked.status, checked.reason) == ("trusted", f"release {manifest.id}: signed by ci")


@pytest.mark.parametrize(
    ("engine", "own"),
    [
        ("openvino", {"openvino-genai"}),
        ("vllm", {"vllm", "torch", "transformers"}),
        ("transformers", {"torch", "transformers", "peft"}),
    ],
)
def test_each_engine_brings_its_own_libraries_and_no_others(engine, own):
    told = bento_build._requirements(engine, ".tunectl/releases")
    named = {re.split(r"[\[<>=~; ]", line)[0].lower() for line in told.splitlines() if line and line[0] not in "# "}
    assert named & {"openvino-genai", "vllm", "torch", "transformers", "peft"} == own
    assert {"bentoml", "jinja2", "msgspec", "prometheus-client", "pydantic", "sqlalchemy", "tokenizers"} <= named


def test_what_bentoml_says_reaches_the_user(project):
    (project / "bentofile.yaml").write_text("service: 'tunectl.no_such:Service'\n")
    with pytest.raises(InfrastructureError, match=r"the Bento cannot be built: .*no_such"):
        bento_build.build(project / "release", FACTS, "demo", project / "bento", settings=SETTINGS, at=AT)
    assert not (project / "bento").exists()


def test_a_missing_part_is_named():
    with pytest.raises(InfrastructureError, match=r"no_such.txt is missing from this project and this installation"):
        bento_build.template_file("no_such.txt")

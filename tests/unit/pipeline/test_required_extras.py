"""What a recipe imports is known before it runs, and everything that is missing is said at once."""

from __future__ import annotations

import json
import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tunectl.artifacts.paths import ProjectPaths
from tunectl.cli.main import main
from tunectl.config.loading import checks
from tunectl.config.loading.override_parsing import Override
from tunectl.core import optional
from tunectl.core.errors import MissingExtraError
from tunectl.core.optional import RequiredPackage, describe_missing, find_missing, require_all
from tunectl.pipeline import required_extras, runner
from tunectl.pipeline.required_extras import list_build_packages, list_required_packages, list_upstream_stages
from tunectl.pipeline.stages import STAGES

ROOT = Path(__file__).parents[3]
NAMES = [stage.name for stage in STAGES]
# Libraries that the development environment does not hold; their distributions have these names.
ABSENT_HERE = {"bitsandbytes": "bitsandbytes", "mlflow": "mlflow-skinny", "wandb": "wandb"}
# One recipe for each option that adds a library.
RECIPES = (
    (),
    ("experiment=e2e", "data.path=x.csv"),
    ("sft=qlora", "hardware=gpu"),
    ("cpt=lora", "sft.neftune_noise_alpha=5"),
    ("align=dpo", "model=hub", "model.source.repo=a/b", f"model.source.revision={'0' * 40}"),
    (
        'align.vllm={mode: server, urls: ["http://127.0.0.1:8000"], api_key_env: null, storage_path: null, timeout_seconds: 60}',
    ),
    ("align=none", "reward=none", "preferences=none", "package=none"),
)


def compose(*words: str) -> Any:
    return checks.load_config(ProjectPaths(), [Override.from_cli(word) for word in words]).root


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def hide(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Make libraries look absent; without names, all of them."""
    real = optional.find_spec

    def find_spec(name: str) -> Any:
        return None if not packages or name in packages else real(name)

    monkeypatch.setattr(optional, "find_spec", find_spec)


def test_every_stage_has_a_rule() -> None:
    assert list(required_extras.RULES) == NAMES


@pytest.mark.parametrize("words", RECIPES)
def test_each_extra_installs_the_package_that_is_asked_of_it(words: tuple[str, ...]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    distributions = packages_distributions() | {name: [found] for name, found in ABSENT_HERE.items()}
    wrong = []
    for package, extra, stage in list_build_packages(compose(*words)):
        installed = {canonicalize_name(Requirement(line).name) for line in extras[extra]}
        if not {canonicalize_name(name) for name in distributions[package]} & (installed | {"openvino-genai"}):
            wrong.append((stage, package, extra))
    assert wrong == []


def test_nothing_is_missing_here_from_the_default_recipe() -> None:
    require_all(list_build_packages(compose()))


def test_all_extras_are_named_at_once_with_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    packages = list_build_packages(compose())
    hide(monkeypatch)
    with pytest.raises(MissingExtraError) as caught:
        require_all(packages)
    assert caught.value.exit_code == 4
    assert caught.value.hint == "pip install 'tunectl-lm[pipeline,train,data,evaluate,serve]'"
    lines = caught.value.message.splitlines()
    assert lines[0] == "this recipe needs packages that are not installed"
    assert lines[1] == "  pipeline: dvc (for repro)"
    data = next(line for line in lines if line.startswith("  data: "))
    assert {"trafilatura", "pypdf", "phonenumbers", "krippendorff"} <= set(re.findall(r"\w+", data))
    assert data.endswith("(for ingest, curate, split, preferences, reward, align)")


def test_only_what_is_missing_is_named() -> None:
    wanted = [
        RequiredPackage("json", "data", "ingest"),
        RequiredPackage("no_such_one", "data", "ingest"),
        RequiredPackage("no_such_two", "train", "sft"),
        RequiredPackage("no_such_one", "data", "split"),
    ]
    assert str(describe_missing(find_missing(wanted))) == (
        "this recipe needs packages that are not installed\n"
        "  data: no_such_one (for ingest, split)\n"
        "  train: no_such_two (for sft)\n"
        "  pip install 'tunectl-lm[data,train]'"
    )


@pytest.mark.parametrize(
    ("target", "words", "asked"),
    [
        ("cpt", ["cpt=lora"], True),
        ("reward", [], True),
        ("sft", [], True),
        ("cpt", ["cpt=none"], False),
        ("split", [], False),
    ],
)
def test_ray_is_asked_for_by_each_stage_that_fits_on_it(target: str, words: list[str], asked: bool) -> None:
    packages = list_build_packages(compose("launch=ray", *words), [target])
    assert (RequiredPackage("ray", "ray", "launch") in packages) is asked


def test_targets_need_only_what_they_read() -> None:
    assert list_upstream_stages(["split"]) == ["ingest", "feedback", "curate", "split"]
    assert list_upstream_stages([]) == NAMES
    extras = {one.extra for one in list_build_packages(compose(), ["split"])}
    assert extras == {"pipeline", "data"}


@pytest.mark.parametrize(
    ("words", "stage", "package", "extra"),
    [
        (("sft=qlora", "hardware=gpu"), "sft", "bitsandbytes", "gpu"),
        (("cpt=lora",), "cpt", "trl", "train"),
        (("ingest.sources.web.type=docx",), "ingest", "docx", "data"),
        (
            ("model=hub", "model.source.repo=a/b", f"model.source.revision={'0' * 40}"),
            "model",
            "huggingface_hub",
            "train",
        ),
    ],
)
def test_an_option_brings_its_package(words: tuple[str, ...], stage: str, package: str, extra: str) -> None:
    wanted = RequiredPackage(package, extra, stage)
    assert wanted in list_required_packages(compose(*words), [stage])
    assert wanted not in list_required_packages(compose(), [stage])


def test_stages_that_are_switched_off_need_nothing() -> None:
    config = compose("align=none", "reward=none", "preferences=none", "package=none")
    assert list_required_packages(config, ["preferences", "reward", "align", "package", "cpt", "feedback"]) == []


def test_kinds_of_files_are_looked_up_below_a_folder(tmp_path: Path) -> None:
    for name in ("a.pdf", "b.html", "c.csv", "d.parquet", "unknown"):
        (tmp_path / name).write_text("x")
    config = compose(f"ingest.sources.web.path={tmp_path}", "ingest.sources.web.type=auto")
    found = {one.package for one in list_required_packages(config, ["ingest"])}
    assert {"pypdf", "trafilatura", "pyarrow"} <= found
    gone = compose("ingest.sources.web.path=not/there", "ingest.sources.web.type=auto")
    assert "pyarrow" not in {one.package for one in list_required_packages(gone, ["ingest"])}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("conf", "examples", "dvc.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_repro_refuses_before_it_records_anything(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved: list[Any] = []
    monkeypatch.setattr("tunectl.config.loading.override_file.save_overrides", lambda *words: saved.append(words))
    hide(monkeypatch, "torch", "pypdf")
    assert main(["repro", "sft.lora_rank=4"]) == 4
    said = capsys.readouterr().err
    assert "\n  data: pypdf (for ingest)\n" in said
    assert said.endswith("\n  pip install 'tunectl-lm[train,data]'\n")
    assert main(["repro", "--to", "split"]) == 4
    assert capsys.readouterr().err.endswith("\n  pip install 'tunectl-lm[data]'\n")
    assert saved == []


def test_check_prints_a_note_and_does_not_fail(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hide(monkeypatch, "torch", "pypdf")
    assert main(["check"]) == 0
    assert capsys.readouterr().out.endswith("\n  pip install 'tunectl-lm[train,data]'\n")
    assert main(["check", "--json"]) == 0
    missing = json.loads(capsys.readouterr().out)["missing_packages"]
    assert {"package": "pypdf", "extra": "data", "used_by": "ingest"} in missing


def test_a_stage_alone_names_its_own(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner.compose(ProjectPaths())
    hide(monkeypatch, "phonenumbers", "ftfy", "torch")
    with pytest.raises(MissingExtraError) as caught:
        runner.run_stage(ProjectPaths(), "curate")
    assert caught.value.message.splitlines()[1:] == ["  data: ftfy, phonenumbers (for curate)"]


def test_whoever_signs_or_verifies_needs_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = RequiredPackage("cryptography", "sign", "repro")
    monkeypatch.delenv("TUNECTL_RELEASE_KEY", raising=False)
    assert needed not in list_build_packages(compose())
    assert needed in list_build_packages(compose("serve.trusted_keys_file=keys.json"))
    monkeypatch.setenv("TUNECTL_RELEASE_KEY", "ci.key")
    assert needed in list_build_packages(compose())

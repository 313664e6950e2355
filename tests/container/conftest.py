"""One image for all tests here: two tiny releases, a Bento, `bentoml containerize`, and containers that are removed."""

from __future__ import annotations

import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from containers import Container, NoEngine, docker, engine
from msgspec import structs
from openvino_release import exported
from serving_process import settings
from tiny_release import tiny_release

from tunectl.backends.export import bento_build, bento_image
from tunectl.config.schema.serve import ServeSettings
from tunectl.packaging import serving_contract as contracts
from tunectl.packaging.serving_contract import Tolerance
from tunectl.registry.release_manifest import BuildFacts

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
AT = "2026-01-01T00:00:00+00:00"


class Built(NamedTuple):
    """What the tests run."""

    image: str
    first: Path
    """The release that the image carries."""
    second: Path
    """Another adapter on the same base."""


@pytest.fixture(scope="session")
def docker_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    try:
        with engine(tmp_path_factory.mktemp("engine")):
            yield
    except NoEngine as error:
        pytest.skip(f"no Docker engine can start: {error}")


@pytest.fixture(scope="session")
def built(docker_engine: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    folder = tmp_path_factory.mktemp("image")
    first, second = _releases(tiny_model, folder)
    base = yaml.safe_load((ROOT / "bentofile.yaml").read_text())["docker"]["base_image"]
    subprocess.run([HERE / "base_image", base], check=True, timeout=1200)
    chosen = ServeSettings.model_validate(settings(engine__threads=2))  # with one, OpenVINO fails on a model this small
    bento_build.build(
        first, BuildFacts("shop", "openvino", "adapter"), "shop", folder / "bento", settings=chosen, at=AT
    )
    image = f"tunectl-test:{uuid.uuid4().hex[:12]}"
    bento_image.containerize(folder / "bento", image)
    yield Built(image, first, second)
    docker("image", "rm", "--force", image)


def _releases(base: Path, folder: Path) -> list[Path]:
    """Two releases for OpenVINO on one export."""
    exported(base, folder / "model")
    found = []
    for seed in (1, 2):
        release = tiny_release(base, folder / f"r{seed}", seed=seed, engine="openvino")
        shutil.rmtree(release / "model")
        shutil.copytree(folder / "model", release / "model")
        contract = contracts.load(release)  # in 8 bits, random weights choose another token here and there
        contracts.save(structs.replace(contract, tolerance=Tolerance(0.5, 0.7)), release)
        found.append(release)
    return found


@pytest.fixture
def volume(docker_engine: None) -> Iterator[str]:
    """An empty volume."""
    name = docker("volume", "create")
    yield name
    docker("volume", "rm", "--force", name)


@pytest.fixture
def run(built: Built, volume: str) -> Iterator[Callable[..., Container]]:
    """Starts containers on ``volume``; they are gone after the test."""
    names: list[str] = []

    def start(*options: str, **given: str) -> Container:
        names.append(f"tunectl-test-{uuid.uuid4().hex[:12]}")
        return Container(built.image, names[-1], *options, **{"volume": volume, **given})

    yield start
    for name in names:
        docker("rm", "--force", "--volumes", name)

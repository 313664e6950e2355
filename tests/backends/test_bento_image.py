"""The image of a Bento: what is said where there is no Bento, no engine, or a build that fails."""

from pathlib import Path

import pytest

from tunectl.backends.export import bento_image
from tunectl.core.errors import InfrastructureError, UsageError


@pytest.fixture
def bento(tmp_path: Path) -> Path:
    (tmp_path / "bento").mkdir()
    (tmp_path / "bento" / "bento.yaml").write_text("name: shop\n")
    return tmp_path / "bento"


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a program called docker into the path, alone there."""

    def made(script: str) -> None:
        program = tmp_path / "bin" / "docker"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return made


def test_without_a_bento_it_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{tmp_path}: there is no Bento\n  build one: tunectl repro"):
        bento_image.containerize(tmp_path, "shop")


def test_without_docker_it_says_what_to_install(bento: Path, docker) -> None:
    with pytest.raises(InfrastructureError, match=r"docker is not installed\n  Debian: apt install docker\.io"):
        bento_image.containerize(bento, "shop")


def test_an_engine_that_does_not_answer_is_quoted(bento: Path, docker) -> None:
    docker("echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    with pytest.raises(InfrastructureError, match="no Docker engine answers: Cannot connect to the Docker daemon"):
        bento_image.containerize(bento, "shop")


def test_a_build_that_fails_ends_with_its_code(bento: Path, docker) -> None:
    docker("exit 0")
    with pytest.raises(InfrastructureError, match="the image shop cannot be built: bentoml containerize ended with 1"):
        bento_image.containerize(bento, "shop")

"""Base images stand in one list; a release pins them by digest."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def images() -> ModuleType:
    spec = importlib.util.spec_from_file_location("images", ROOT / "requirements" / "images.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copy(images: ModuleType, tmp_path: Path) -> Path:
    for name in ("requirements/images.lock", *images.FILES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_every_base_image_is_that_of_the_list(images: ModuleType) -> None:
    assert images.find_problems() == []
    assert len(list(images.list_references())) == 7
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*dockerfile*"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    named = [
        line
        for path in (ROOT / name for name in listed)
        if path.is_file()
        for line in path.read_text(errors="ignore").splitlines()
        if line.startswith("FROM ")
    ]
    assert [line for line in named if "{{" not in line] == ["FROM python:3.13-slim"], (
        "a new Dockerfile belongs into images.FILES"
    )


def test_a_release_needs_every_digest_and_pins_them_where_they_are_used(
    images: ModuleType, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(images.find_problems(digests=True, root=copy)) == 6
    monkeypatch.setattr(images, "fetch_digest", lambda reference: "sha256:" + f"{len(reference):064x}")
    images.fill(copy)
    assert images.find_problems(digests=True, root=copy) == []
    base = yaml.safe_load((copy / "bentofile.yaml").read_text())["docker"]["base_image"]
    assert base == f"python:3.13-slim@sha256:{len('python:3.13-slim'):064x}"
    images.fill(copy)
    assert images.find_problems(digests=True, root=copy) == []


def test_another_tag_and_a_line_that_is_none_are_named(images: ModuleType, copy: Path) -> None:
    compose = copy / "monitoring/compose.yaml"
    compose.write_text(compose.read_text().replace("image: postgres:17", "image: postgres:18"))
    assert images.find_problems(root=copy) == [
        "monitoring/compose.yaml: postgres:18 is postgres:17 in requirements/images.lock"
    ]
    (copy / "requirements/images.lock").write_text("python 3.13-slim\n")
    with pytest.raises(ValueError, match=r"images\.lock:1: 'python 3\.13-slim' is not NAME TAG DIGEST"):
        images.read_lock(copy / "requirements/images.lock")

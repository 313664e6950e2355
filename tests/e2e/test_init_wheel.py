"""``tunectl init`` from an installed wheel, in an environment of its own, without the repository and without a network."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def call(words: list[str], folder: Path, *, code: int = 0) -> str:
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PIP", "VIRTUAL_ENV"))
    }
    environment |= {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "1", "COLUMNS": "200"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def tunectl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``tunectl`` of a new environment that holds the built wheel; its libraries are those of this environment."""
    pytest.importorskip("hatchling")
    place = tmp_path_factory.mktemp("wheel")
    call([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)], ROOT)
    wheel = next(place.glob("tunectl_lm-*.whl"))
    home = place / "environment"
    venv.create(home, with_pip=False, symlinks=True)
    python = str(home / "bin" / "python")
    call(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps", str(wheel)],
        place,
    )
    # A .pth inside a folder that a .pth adds is not read, so the editable install of this checkout stays out of sight.
    site = next((home / "lib").glob("python*")) / "site-packages"
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    shown = call([python, "-c", "import tunectl; print(tunectl.__file__)"], place)
    assert shown.startswith(str(home)), shown
    return home / "bin" / "tunectl"


def test_empty_project(tunectl: Path, tmp_path: Path) -> None:
    said = call([str(tunectl), "init", "mine"], tmp_path)
    assert "mine: a new project in" in said
    project = tmp_path / "mine"
    assert {"conf", "dvc.yaml", "data", "README.md"} <= {item.name for item in project.iterdir()}
    assert not (project / "src").exists()
    (project / "data" / "notes.txt").write_text("A page about our shop.\n")
    assert "ingest=project" in call([str(tunectl), "check"], project)


def test_typo_in_an_own_project_is_found(tunectl: Path, tmp_path: Path) -> None:
    call([str(tunectl), "init", "mine"], tmp_path)
    said = call([str(tunectl), "check", "sft.rnk=3"], tmp_path / "mine", code=2)
    assert "sft.rnk" in said
    assert "rank" in said


def test_example_project_reads_its_data(tunectl: Path, tmp_path: Path) -> None:
    call([str(tunectl), "init", "lens", "--example", "local_lens"], tmp_path)
    project = tmp_path / "lens"
    assert "ingest=local_lens" in call([str(tunectl), "check"], project)
    call([str(tunectl), "run", "compose"], project)
    call([str(tunectl), "run", "ingest"], project)
    assert (project / "artifacts" / "ingest" / "manifest.json").is_file()
    assert (project / "artifacts" / "ingest" / "examples.jsonl").stat().st_size > 0


def test_the_demo_starts_from_the_wheel_alone(tunectl: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [str(tunectl), "demo", "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("a project recorded on ")
        assert process.stdout.readline().startswith("open http://127.0.0.1:")
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()

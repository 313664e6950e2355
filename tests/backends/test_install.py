"""``make install``: where the index of torch's builds cannot be reached, torch comes from the default index, and a line says so."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLOSED = "http://127.0.0.1:9"
"""A proxy that nobody runs: no index can be reached."""


@dataclass
class FreshEnvironment:
    """An environment of its own, a lock file, and a folder that is pip's default index."""

    root: Path

    @property
    def python(self) -> Path:
        return self.root / "env" / "bin" / "python"

    def add_uv(self) -> None:
        """Put the uv of this environment there."""
        spec = importlib.util.find_spec("uv")
        assert spec is not None
        assert spec.origin is not None
        import uv

        package = next((self.root / "env" / "lib").glob("python3*/site-packages"))
        (package / "uv").symlink_to(Path(spec.origin).parent)
        (self.root / "env" / "bin" / "uv").symlink_to(uv.find_uv_bin())

    def add_wheel(self, name: str, version: str, *, text: str = "", needs: str = "") -> None:
        with zipfile.ZipFile(self.root / "index" / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            info = f"{name}-{version}.dist-info"
            wheel.writestr(f"{name}.py", text)
            asked = f"Requires-Dist: {needs}\n" if needs else ""
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{asked}")
            wheel.writestr(
                f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            wheel.writestr(f"{info}/RECORD", "")

    def hash_wheel(self, name: str, version: str) -> str:
        """The line of a lock for a wheel of the index."""
        content = (self.root / "index" / f"{name}-{version}-py3-none-any.whl").read_bytes()
        return f"{name}=={version} --hash=sha256:{hashlib.sha256(content).hexdigest()}"

    def install(self, *lines: str, only_folder: bool = False) -> subprocess.CompletedProcess[str]:
        """Run requirements/install.py on torch and a lock file of ``lines``; ``only_folder``: uv, too, asks no index."""
        (self.root / "torch.txt").write_text("torch>=2.9\n", encoding="utf-8")
        (self.root / "run.txt").write_text("\n".join(lines), encoding="utf-8")
        local = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.root / "index"), "PIP_CONFIG_FILE": os.devnull}
        proxies = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy"), CLOSED)
        uv = {"UV_FIND_LINKS": local["PIP_FIND_LINKS"], "UV_NO_CACHE": "1", "NO_PROXY": "", "no_proxy": ""}
        if only_folder:
            (self.root / "uv.toml").write_text("no-index = true\n", encoding="utf-8")
            uv["UV_CONFIG_FILE"] = str(self.root / "uv.toml")
        words = [str(self.python), str(self.root / "install.py"), "torch.txt", "run.txt"]
        environment = {**os.environ, **local, **proxies, **uv, "PYTHONPATH": ""}
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)

    def list_packages(self) -> set[str]:
        words = [str(self.python), "-m", "pip", "list", "--format", "freeze"]
        return set(subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines())


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with pip alone. To make one takes seconds, so each test has a copy; nothing asks for its scripts."""
    folder = tmp_path_factory.mktemp("empty") / "env"
    venv.create(folder, with_pip=True)
    return folder


@pytest.fixture
def fresh(empty: Path, tmp_path: Path) -> FreshEnvironment:
    shutil.copytree(empty, tmp_path / "env", symlinks=True)
    (tmp_path / "index").mkdir()
    shutil.copy(ROOT / "requirements" / "install.py", tmp_path)
    made = FreshEnvironment(tmp_path)
    made.add_wheel("torch", "2.99")
    return made


def test_torch_comes_from_the_default_index_where_that_of_its_builds_cannot_be_reached(fresh: FreshEnvironment) -> None:
    fresh.add_uv()
    done = fresh.install("# nothing but torch")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "[1/2] torch>=2.9 (uv)"
    assert lines[1] == "the index of torch's builds cannot be reached; taking torch from the default index"
    assert lines[-1].startswith("installed run.txt in ")
    assert "torch==2.99" in fresh.list_packages()


def test_pip_installs_where_uv_cannot_be_had(fresh: FreshEnvironment) -> None:
    fresh.add_wheel("shop", "1.0")
    done = fresh.install(fresh.hash_wheel("shop", "1.0"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[1/2] torch>=2.9 (pip)\n[2/2] run.txt (")
    assert {"torch==2.99", "shop==1.0"} <= fresh.list_packages()


def test_a_package_that_no_index_has_ends_with_the_reason(fresh: FreshEnvironment) -> None:
    done = fresh.install(f"no-such-package==1.0 --hash=sha256:{'0' * 64}")
    assert done.returncode == 1
    assert "No matching distribution found for no-such-package==1.0" in done.stderr


def test_another_hash_no_hash_and_what_a_lock_leaves_out_are_refused(fresh: FreshEnvironment) -> None:
    fresh.add_wheel("shop", "1.0")
    line = fresh.hash_wheel("shop", "1.0")
    fresh.add_wheel("shop", "1.0", text="evil = True")
    done = fresh.install(line)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    fresh.add_uv()
    done = fresh.install(line, only_folder=True)
    assert done.returncode != 0
    assert "Hash mismatch for `shop==1.0`" in done.stderr
    done = fresh.install("shop==1.0", only_folder=True)
    assert done.returncode != 0
    assert "In `--require-hashes` mode, all requirements must have a hash" in done.stderr
    assert not any(one.startswith("shop") for one in fresh.list_packages())
    fresh.add_wheel("shop", "1.0", needs="till>=2")
    done = fresh.install(fresh.hash_wheel("shop", "1.0"), only_folder=True)
    assert done.returncode != 0
    assert "till" in done.stdout + done.stderr

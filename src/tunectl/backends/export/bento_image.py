"""The container image of a Bento: ``bentoml containerize`` in a process, a store and a folder of its own, on a Docker engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.core.optional import import_optional


def containerize(bento: Path, name: str) -> int:
    """Build the image ``name`` of the Bento in the folder ``bento``; BentoML's output is passed through. Returns the image's size in bytes.

    BentoML 1.4.36 to 1.4.40 refuses a Dockerfile template outside of the working folder, though it copies the template into a temporary
    folder itself (its issue 5566), so here the temporary folder is inside the working folder.
    Raises  UsageError where there is no Bento; InfrastructureError without a Docker engine, or where the build fails.
    """
    if not (bento / "bento.yaml").is_file():
        raise UsageError(f"{bento}: there is no Bento", hint="build one: tunectl repro")
    import_optional("bentoml", extra="serve")
    _refuse_no_engine()
    scratch = Path(tempfile.mkdtemp(prefix="image-")).resolve()  # not a hidden folder: BentoML refuses those
    try:
        bento_folder = scratch / "home" / "bentos" / "bento" / "one"
        bento_folder.parent.mkdir(parents=True)
        bento_folder.symlink_to(bento.resolve(), target_is_directory=True)
        _run(scratch, name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return int(_docker("image", "inspect", "--format", "{{.Size}}", name).stdout)


def _run(scratch: Path, name: str) -> None:
    own = {"BENTOML_HOME": str(scratch / "home"), "TMPDIR": str(scratch), "PYTHONWARNINGS": "ignore"}
    quiet = {"BENTOML_DO_NOT_TRACK": "True", "DO_NOT_TRACK": "1"}
    command = [sys.executable, "-m", "bentoml", "containerize", "bento:one", "--image-tag", name, "--backend", "docker"]
    process = subprocess.run(command, cwd=scratch, env={**os.environ, **quiet, **own}, check=False)
    if process.returncode:
        raise InfrastructureError(
            f"the image {name} cannot be built: bentoml containerize ended with {process.returncode}",
            hint="the lines of BentoML and Docker above say why; if the disk is full, docker system df shows what takes space",
        )


def _refuse_no_engine() -> None:
    if shutil.which("docker") is None:
        raise InfrastructureError(
            "docker is not installed", hint="Debian: apt install docker.io docker-cli docker-buildx"
        )
    process = _docker("info")
    if process.returncode:
        last_line = (process.stderr.strip() or f"docker info ended with {process.returncode}").splitlines()[-1]
        raise InfrastructureError(
            f"no Docker engine answers: {last_line[:300]}", hint="start one: systemctl start docker"
        )


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)

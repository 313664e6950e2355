"""A release of the tiny model for the engine that people use: its base exported to int8 by the exporter environment."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
from tiny_release import tiny_release

from tunectl.backends.export import exporter_env, openvino_export
from tunectl.packaging import serving_contract as contracts
from tunectl.packaging.serving_contract import Tolerance

ROOT = Path(__file__).parents[2]


def openvino_release(base: Path, folder: Path, *, seed: int = 1) -> Path:
    """Write a release folder, adapter apart, without its manifest."""
    release = tiny_release(base, folder, seed=seed, engine="openvino")
    shutil.rmtree(release / "model")
    exported(base, release / "model")
    told = contracts.load(release)  # rounding weighs more in a model of 32 numbers a token
    contracts.save(msgspec.structs.replace(told, tolerance=Tolerance(0.5, 0.8)), release)
    return release


def exported(model: Path, out: Path) -> None:
    """Export in the environment that .ci/run made, or in one of this checkout."""
    made = exporter_env.VARIABLE not in os.environ
    if made:
        os.environ[exporter_env.VARIABLE] = str(exporter_env.ensure_interpreter(ROOT / ".tunectl" / "exporters"))
    try:
        openvino_export.export(model, out, "int8")
    finally:
        if made:
            del os.environ[exporter_env.VARIABLE]

"""A model folder turned into OpenVINO files with compressed weights, by optimum-intel in the exporter environment.

Run there as a module: ``python -m tunectl.backends.openvino_export MODEL OUT WEIGHTS``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tunectl.backends import export_room
from tunectl.core.errors import UsageError
from tunectl.core.lazy import need

MODEL = "openvino_model.xml"
GROUP = 64
"""Weights of int4 that share a scale; smaller models have layers that 128 does not divide."""


def export(model: Path, out: Path, weights: str) -> None:
    """Write openvino_model.xml and .bin, the tokenizer as OpenVINO files, and the small files beside them.

    weights  int8 (a scale a channel, asymmetric) or int4 (a scale a group)
    Raises   EnvironmentFailure with the exporter's last words; UsageError where it wrote no model.
    """
    words = ["-m", "tunectl.backends.openvino_export", str(model.absolute()), str(out.absolute()), weights]
    export_room.run(words, f"exporting {model.name} to OpenVINO")
    if not (out / MODEL).is_file():
        raise UsageError(
            f"optimum-intel wrote no {MODEL} for {model}",
            hint="its architecture may be unknown; try package=transformers",
        )


def convert(model: Path, out: Path, weights: str) -> None:
    """Do it here; only the exporter environment can."""
    openvino = need("optimum.exporters.openvino", extra="export")
    settings = need("optimum.intel", extra="export")
    config = need("optimum.intel.openvino", extra="export").OVConfig
    how = (
        {"bits": 8, "sym": False} if weights == "int8" else {"bits": 4, "sym": False, "group_size": GROUP, "ratio": 1.0}
    )
    openvino.main_export(
        str(model),
        output=str(out),
        task="text-generation-with-past",
        library_name="transformers",
        trust_remote_code=False,
        local_files_only=True,
        convert_tokenizer=True,
        ov_config=config(quantization_config=settings.OVWeightQuantizationConfig(**how)),
    )


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])

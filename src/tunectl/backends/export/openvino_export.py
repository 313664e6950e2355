"""A model folder turned into OpenVINO files with compressed weights, by optimum-intel's command in the exporter environment."""

from __future__ import annotations

import re
from pathlib import Path

from tunectl.backends.export import exporter_env
from tunectl.core.errors import InfrastructureError

MODEL = "openvino_model.xml"
HOW = {
    "int8": ("--weight-format", "int8"),
    "int4": ("--weight-format", "int4", "--group-size", "64", "--ratio", "1.0"),
}
"""int8: one scale per channel, asymmetric. int4: one scale for 64 weights, because 128 does not divide the layers of small models."""
TYPES = {"int8": {"u8", "i8"}, "int4": {"u4", "i4"}}


def export(model: Path, out: Path, weights: str) -> None:
    """Convert the model folder ``model`` to OpenVINO files in ``out``, with weights in ``weights`` (int8 or int4).

    Raises  InfrastructureError with the exporter's error message, or where its weights are not of the kind that was asked for:
            optimum's Python function ignores the kind while its command respects it, and nothing else would detect that.
    """
    arguments = ["-m", "optimum.commands.optimum_cli", "export", "openvino", "-m", str(model.absolute())]
    arguments += [
        "--task",
        "text-generation-with-past",
        "--library",
        "transformers",
        *HOW[weights],
        str(out.absolute()),
    ]
    exporter_env.run_in_env(arguments, f"exporting {model.name} to OpenVINO")
    result = read_element_types(out)
    if not result & TYPES[weights]:
        raise InfrastructureError(
            f"exporting {model.name} to OpenVINO gave weights of {', '.join(sorted(result)) or 'no kind'}, not {weights}",
            hint=f"the exporter needs the versions of {exporter_env.LOCK}: unset {exporter_env.VARIABLE} so that tunectl installs them, "
            "or choose other weights (package.weights)",
        )


def read_element_types(out: Path) -> set[str]:
    """Return the element types (``i8``, ``u4``, …) of the constants in the exported model folder ``out``."""
    path = out / MODEL
    if not path.is_file():
        return set()
    return set(re.findall(r'element_type="([a-z0-9]+)"', path.read_text()))

"""Add an adapter into the weights of a model folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from tunectl.backends.modeling import model_loader
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.core.optional import import_optional

WEIGHTS = "model.safetensors"


def merge(model: Path, adapter: Path, out: Path) -> None:
    """Write the model folder ``model`` with ``adapter`` merged into its weights, in their type, to the folder ``out``.

    The sum is made in float32 and rounded once. Everything but the weights and the contract is copied as it is.
    """
    safetensors = import_optional("safetensors.torch", extra="train")
    plain = HardwareProfile(
        device="cpu",
        threads=None,
        dtype="float32",
        train_batch_tokens=64,
        generate_batch=1,
        gradient_checkpointing=False,
    )
    merged = model_loader.load(model, adapter=adapter, profile=plain).model.merge_and_unload()
    file = safetensors.load_file(str(model / WEIGHTS))
    state = merged.state_dict()
    joined = {name: state[name].to(weights.dtype).contiguous() for name, weights in file.items()}
    out.mkdir(parents=True, exist_ok=True)
    safetensors.save_file(joined, str(out / WEIGHTS), metadata={"format": "pt"})
    for path in sorted(model.iterdir()):
        if path.is_file() and path.name not in {WEIGHTS, "model_spec.json", "manifest.json"}:
            shutil.copyfile(path, out / path.name)

"""A fit that goes on from a stored adapter instead of new weights: what a retrain begins with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tunectl.artifacts import atomic_io
from tunectl.backends.modeling import peft_adapter
from tunectl.backends.modeling.peft_adapter import AdapterConfigFields
from tunectl.core.errors import ArtifactError, UsageError
from tunectl.core.optional import import_optional
from tunectl.training.train_args import LoraArgs


def load_adapter_weights(model: Any, folder: Path, plan: LoraArgs) -> None:
    """Put the weights of the adapter in ``folder`` into the fresh adapter of ``model``.

    Raises  ArtifactError where there is none, or it cannot be read; UsageError where its shape is not the one that ``plan`` trains.
    """
    peft, files = import_optional("peft", extra="train"), import_optional("safetensors.torch", extra="train")
    path = folder / peft_adapter.WEIGHTS
    if not path.is_file():
        raise ArtifactError(
            f"sft.init_adapter = {folder}: there is no {peft_adapter.WEIGHTS} in it",
            hint="bring that adapter here (the folder adapter of a release in the release store), or set sft.init_adapter=null",
        )
    try:
        theirs: dict[str, Any] = files.load_file(str(path))
    except (OSError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", hint="bring it again") from error
    _refuse_another_strength(folder, plan)
    _refuse_another_shape(folder, theirs, peft.get_peft_model_state_dict(model))
    peft.set_peft_model_state_dict(model, theirs)


def _refuse_another_strength(folder: Path, plan: LoraArgs) -> None:
    """Raise for another LoRA scale: the same matrices with another factor are another model."""
    fields: AdapterConfigFields = atomic_io.read_json(folder / peft_adapter.NAME, AdapterConfigFields)
    ours = plan.lora_alpha / (math.sqrt(plan.lora_rank) if plan.method == "rslora" else plan.lora_rank)
    theirs = fields.lora_alpha / (math.sqrt(fields.r) if fields.use_rslora else fields.r)
    if abs(ours - theirs) > 1e-9 * max(ours, theirs):
        raise UsageError(
            f"sft.init_adapter = {folder}: it is scaled by {theirs:g}, and sft.lora_alpha and sft.lora_rank scale by {ours:g}",
            hint="train with the rank and alpha of that adapter, or set sft.init_adapter=null",
        )


def _refuse_another_shape(folder: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    there, here = ({name: tuple(item.shape) for name, item in result.items()} for result in (theirs, ours))
    if there == here:
        return
    odd = min(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
    raise UsageError(
        f"sft.init_adapter = {folder}: {odd} is {there.get(odd, 'absent')} there and {here.get(odd, 'absent')} here",
        hint="train with the rank and the targets of that adapter, or set sft.init_adapter=null",
    )

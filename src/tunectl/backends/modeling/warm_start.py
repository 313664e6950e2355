"""Start training from a stored adapter instead of new weights, as retraining does."""

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


def load_adapter_weights(model: Any, folder: Path, plan: LoraArgs, *, setting: str = "sft.init_adapter") -> None:
    """Copy the weights of the adapter in ``folder`` into the new adapter of ``model``; ``setting`` names the folder's setting in errors.

    Raises  ArtifactError where ``folder`` has no readable adapter; UsageError where its layers, rank or scaling differ from ``plan``.
    """
    peft, files = import_optional("peft", extra="train"), import_optional("safetensors.torch", extra="train")
    path = folder / peft_adapter.WEIGHTS
    if not path.is_file():
        raise ArtifactError(
            f"{setting} = {folder}: there is no {peft_adapter.WEIGHTS} in it",
            hint=f"bring that adapter here (the folder adapter of a release in the release store), or set {setting}=null",
        )
    try:
        stored: dict[str, Any] = files.load_file(str(path))
    except (OSError, ValueError, RuntimeError) as error:
        raise ArtifactError(
            f"{setting} = {folder}: {path.name} cannot be loaded as safetensors: {str(error)[:300]}",
            hint=f"copy the adapter there again, or set {setting}=null",
        ) from error
    _refuse_another_strength(folder, plan, setting)
    _refuse_another_shape(folder, stored, peft.get_peft_model_state_dict(model, save_embedding_layers=False), setting)
    peft.set_peft_model_state_dict(model, stored)


def _refuse_another_strength(folder: Path, plan: LoraArgs, setting: str) -> None:
    """Raise for another LoRA scale: the same matrices with another factor are another model."""
    fields: AdapterConfigFields = atomic_io.read_json(folder / peft_adapter.NAME, AdapterConfigFields)
    own_scale = plan.lora_alpha / (math.sqrt(plan.lora_rank) if plan.method == "rslora" else plan.lora_rank)
    stored_scale = fields.lora_alpha / (math.sqrt(fields.r) if fields.use_rslora else fields.r)
    if abs(own_scale - stored_scale) > 1e-9 * max(own_scale, stored_scale):
        raise UsageError(
            f"{setting} = {folder}: the LoRA scale of that adapter is {stored_scale:g} (alpha {fields.lora_alpha:g}, rank {fields.r}), "
            f"but sft.lora_alpha and sft.lora_rank give {own_scale:g}",
            hint=f"train with the rank and alpha of that adapter, or set {setting}=null",
        )


def _refuse_another_shape(folder: Path, stored: dict[str, Any], own: dict[str, Any], setting: str) -> None:
    stored_shapes, own_shapes = ({name: tuple(item.shape) for name, item in result.items()} for result in (stored, own))
    if stored_shapes == own_shapes:
        return
    odd = min(
        name for name in stored_shapes.keys() | own_shapes.keys() if stored_shapes.get(name) != own_shapes.get(name)
    )
    raise UsageError(
        f"{setting} = {folder}: the shape of {odd} is {stored_shapes.get(odd, 'absent')} in that adapter, and "
        f"{own_shapes.get(odd, 'absent')} in the adapter to be trained",
        hint=f"train with that adapter's rank and modules (sft.lora_rank, sft.target_modules), or set {setting}=null",
    )

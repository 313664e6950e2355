"""Bring a model to its device, with the frozen layers divided among the ranks (FSDP2) where that is declared.

The model is loaded into the memory of the machine and each layer is divided as it is moved, so a model that is larger than the
memory of one GPU can be trained. Only frozen weights are divided. Adapter, optimizer, average, checkpoints and export stay plain tensors, so nothing else changes.
"""

from __future__ import annotations

from typing import Any

from tunectl.backends.modeling.process_group import ProcessGroup
from tunectl.core import logging_setup
from tunectl.core.errors import UsageError
from tunectl.core.optional import import_optional
from tunectl.training.train_args import TrainingArgs

_log = logging_setup.get_logger(__name__)


def place_model(model: Any, plan: TrainingArgs, group: ProcessGroup) -> None:
    """Move a model with an adapter to the device of ``plan``; if ``group`` is sharded, each rank keeps its part of each decoder layer.

    Embeddings, head and adapter stay whole. Weights in 4 bits are on their device already.
    Raises  UsageError where weights in 4 bits, or a model that names no layers, should be divided.
    """
    if group.sharded:
        _shard_layers(model, plan, group)
    if not plan.four_bit:
        model.to(plan.profile.device)


def _shard_layers(model: Any, plan: TrainingArgs, group: ProcessGroup) -> None:
    if plan.four_bit:
        raise UsageError(
            f"launch.shard = layers cannot divide weights in 4 bits ({plan.label}.method = qlora)",
            hint="set launch.shard=none, or sft=lora",
        )
    base = model.get_base_model()
    kinds = set(getattr(base, "_no_split_modules", None) or ())
    layers = [module for module in base.modules() if type(module).__name__ in kinds]
    if not layers:
        raise UsageError(
            f"launch.shard = layers: {type(base).__name__} declares no layers to divide (_no_split_modules)",
            hint="set launch.shard=none",
        )
    mesh = import_optional("torch.distributed.device_mesh", extra="train").init_device_mesh(
        plan.profile.device, (group.world_size,)
    )
    fully_shard = import_optional("torch.distributed.fsdp", extra="train").fully_shard
    for layer in layers:
        adapter = {weights for weights in layer.parameters() if weights.requires_grad}
        # moves the layer to the device of the mesh, and keeps this rank's part;
        # gathered weights are freed at once: else the state_dict of a checkpoint on one rank would gather alone, and the next step hang
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=adapter)
    local_weights = sum((w.to_local() if hasattr(w, "to_local") else w).numel() for w in model.parameters())
    _log.info(
        "%s: each rank holds %d of %d weights",
        plan.label,
        local_weights,
        sum(weights.numel() for weights in model.parameters()),
    )

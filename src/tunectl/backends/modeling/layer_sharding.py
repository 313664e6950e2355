"""Divide the frozen layers of a model among the ranks (FSDP2), so that they take less GPU memory in training.

Each rank loads the whole model first, so a model that is larger than the memory of one GPU does not load.
Only frozen weights are divided. Adapter, optimizer, average, checkpoints and export stay plain tensors, so nothing else changes.
"""

from __future__ import annotations

from typing import Any

from tunectl.backends.modeling.process_group import ProcessGroup
from tunectl.core import logging_setup
from tunectl.core.errors import UsageError
from tunectl.core.optional import import_optional
from tunectl.training.train_args import TrainingArgs

_log = logging_setup.get_logger(__name__)


def shard_layers(model: Any, plan: TrainingArgs, group: ProcessGroup) -> None:
    """Divide the frozen weights of each decoder layer among the ranks if ``group`` is sharded; embeddings, head and adapter stay whole.

    Raises  UsageError for weights in 4 bits, and for a model that names no layers.
    """
    if not group.sharded:
        return
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
        # gathered weights are freed at once: else the state_dict of a checkpoint on one rank would gather alone, and the next step hang
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=adapter)
    local_weights = sum((w.to_local() if hasattr(w, "to_local") else w).numel() for w in model.parameters())
    _log.info(
        "%s: each rank holds %d of %d weights",
        plan.label,
        local_weights,
        sum(weights.numel() for weights in model.parameters()),
    )

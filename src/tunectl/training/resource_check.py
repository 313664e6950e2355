"""Estimate memory and disk of a training before anything is loaded."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tunectl.core.errors import InfrastructureError

MEGA = 1_000_000


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Sizes of a model from its config.json, from which memory is estimated."""

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int


def estimate_memory(
    size: ModelSize, *, tokens: int, trainable: int, checkpointing: bool, weight_bytes: float = 2.0
) -> int:
    """Return the approximate peak memory of a training in bytes.

    ``tokens``: those of one micro-batch; ``trainable``: number of trained weights; ``checkpointing``: whether activations are
    recomputed in the backward pass; ``weight_bytes``: bytes per frozen weight.
    Counted are weights; 16 bytes per trained weight (value, gradient, two moments); what the backward pass keeps of each
    layer, about 16 hidden and 5 intermediate vectors per token in 2 bytes, and as much again that the allocator holds between
    batches of different shapes; and a slice of logits. SmolLM2-135M at 2,048 tokens: 5.0 GB here, 5.2 GB measured.
    """
    activation_bytes = 4 * (16 * size.hidden + 5 * size.intermediate)
    layers = 2 + size.layers // 8 if checkpointing else size.layers
    logits = 10 * 1024 * size.vocabulary
    return int(size.parameters * weight_bytes + 16 * trainable + tokens * layers * activation_bytes + logits)


def available_memory(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Return the available memory of this machine in bytes, read from the file ``meminfo``; None where it does not report it."""
    if not meminfo.is_file():
        return None
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def check_memory(needed: int, free: int | None, *, hint: str) -> None:
    """Raise where ``needed`` bytes of memory exceed the ``free`` ones (None: unknown); ``hint`` says which settings to lower.

    Raises  InfrastructureError naming both numbers and what to lower.
    """
    if free is not None and needed > free:
        raise InfrastructureError(
            f"training needs about {needed // MEGA:,} MB of memory, and {free // MEGA:,} MB are free", hint=hint
        )


def memory_hint(tokens: int, section: str) -> str:
    """Return a hint that names the settings of ``section`` that lower the memory; ``tokens`` is the micro-batch size now."""
    return (
        f"lower hardware.train_batch_tokens (now {tokens}), {section}.max_length or {section}.lora_rank, switch on hardware.gradient_checkpointing, "
        "or take a smaller model"
    )


def check_disk(folder: Path, needed: int) -> None:
    """Raise where the disk of ``folder`` has fewer than ``needed`` free bytes, before a checkpoint fails half-way.

    Raises  InfrastructureError naming both numbers and the folder.
    """
    existing = next(path for path in (folder, *folder.parents, Path()) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise InfrastructureError(
            f"{folder} needs {needed // MEGA:,} MB for checkpoints, and {free // MEGA:,} MB are free on its disk",
            hint="free some space (tunectl keeps unfinished work in .tunectl/work), then run again",
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory could not be allocated; torch raises RuntimeError for that."""
    message = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in message or "can't allocate memory" in message
